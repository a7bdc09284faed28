# The library's own compiled copy of the messages, included as "client/messages/*.pb.h", C++ namespace
# attnd::client::v1.
#
# protobuf keeps one registry of .proto files in a process and aborts when a file is registered twice. A program may
# contain the library several times (e.g. in two plugins), together with the attnd.v1 messages. So the copy has its own
# package and uses protobuf's lite runtime, which registers nothing. Each build generates it from the same .proto files.
# It includes the google.protobuf types that they use, since the lite runtime has none of them.
set(package_of_google ${Protobuf_INCLUDE_DIRS})
if(TARGET protobuf::libprotobuf)
  get_target_property(of_target protobuf::libprotobuf INTERFACE_INCLUDE_DIRECTORIES)
  list(APPEND package_of_google ${of_target})
endif()
find_path(ATTND_GOOGLE_PROTOS google/protobuf/any.proto HINTS ${package_of_google} REQUIRED)

set(sources)
foreach(name types attention local model server session)
  list(APPEND sources ${PROJECT_SOURCE_DIR}/proto/attnd/v1/${name}.proto)
endforeach()
foreach(name any duration timestamp)
  list(APPEND sources ${ATTND_GOOGLE_PROTOS}/google/protobuf/${name}.proto)
endforeach()
set(gen ${CMAKE_CURRENT_BINARY_DIR}/gen)
set(rename ${CMAKE_CURRENT_LIST_DIR}/own_package.cmake)
file(MAKE_DIRECTORY ${gen}/client/messages)
set(protos)
set(compiled)
foreach(source ${sources})
  get_filename_component(name ${source} NAME_WE)
  set(proto ${gen}/client/messages/${name}.proto)
  add_custom_command(OUTPUT ${proto} COMMAND ${CMAKE_COMMAND} -DFROM=${source} -DTO=${proto} -P ${rename}
                     DEPENDS ${source} ${rename} VERBATIM)
  list(APPEND protos ${proto})
  list(APPEND compiled ${gen}/client/messages/${name}.pb.cc ${gen}/client/messages/${name}.pb.h)
endforeach()
add_custom_command(OUTPUT ${compiled}
                   COMMAND $<TARGET_FILE:protobuf::protoc> --cpp_out=lite:${gen} -I ${gen} ${protos}
                   DEPENDS ${protos} VERBATIM)
add_library(attnd_client_messages OBJECT ${compiled})
set_target_properties(attnd_client_messages PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
target_include_directories(attnd_client_messages SYSTEM PUBLIC ${gen})
target_link_libraries(attnd_client_messages PUBLIC protobuf::libprotobuf-lite)
