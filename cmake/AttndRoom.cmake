# attnd_room(PATH [FOLDER folder] [SOURCES files...] [PUBLIC targets...] [PRIVATE targets...])
#
# Declares a room of the source tree as a static library. Its headers are included as "PATH/file.h". Its target is
# attnd_PATH with underscores: the room server/net is attnd_server_net. FOLDER is the room's folder, if not the current
# one.
#
# PUBLIC lists the targets that its headers include, PRIVATE those that only its sources include. Each room has its own
# include folder, so including a room that is not named, directly or by a header, fails to build. What a header includes
# is visible to everyone who includes it, so tests/checks/arrows.py checks that each room names everything that it
# includes itself.
function(attnd_room path)
  cmake_parse_arguments(ROOM "" "FOLDER" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
  if(NOT ROOM_FOLDER)
    set(ROOM_FOLDER ${CMAKE_CURRENT_SOURCE_DIR})
  endif()
  string(REPLACE "/" "_" name ${path})
  attnd_view(${path} ${ROOM_FOLDER} view)
  if(ROOM_SOURCES)
    list(TRANSFORM ROOM_SOURCES PREPEND ${ROOM_FOLDER}/ REGEX "^[a-z0-9_]+[.]cc$")
    add_library(attnd_${name} STATIC ${ROOM_SOURCES})
    set(scope PUBLIC)
    target_link_libraries(attnd_${name} PRIVATE attnd_warnings ${ROOM_PRIVATE})
    attnd_unity(attnd_${name})
  else()
    add_library(attnd_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(attnd_${name} ${scope} $<BUILD_INTERFACE:${view}>)
  target_link_libraries(attnd_${name} ${scope} ${ROOM_PUBLIC})
  attnd_names(${path} attnd_${name} ${ROOM_PUBLIC} ${ROOM_PRIVATE})
endfunction()

# attnd_view(PATH FOLDER OUT): sets OUT to an include folder that contains only FOLDER, as PATH.
function(attnd_view path folder out)
  string(REPLACE "/" "_" name ${path})
  set(view ${PROJECT_BINARY_DIR}/rooms/${name})
  get_filename_component(parent ${view}/${path} DIRECTORY)
  file(MAKE_DIRECTORY ${parent})
  if(NOT EXISTS ${view}/${path})
    file(CREATE_LINK ${folder} ${view}/${path} SYMBOLIC)
  endif()
  set(${out} ${view} PARENT_SCOPE)
endfunction()

# attnd_names(PATH TARGET targets...): records that the room PATH has the target TARGET and uses `targets`, rooms among
# them.
function(attnd_names path target)
  string(JOIN " " line ${path} ${target} ${ARGN})
  set_property(GLOBAL APPEND PROPERTY ATTND_ARROWS "${line}")
endfunction()

# attnd_write_arrows(FILE): writes a line for each recorded room: its path, its target, and the targets it uses.
function(attnd_write_arrows file)
  get_property(lines GLOBAL PROPERTY ATTND_ARROWS)
  string(JOIN "\n" text ${lines})
  file(WRITE ${file} "${text}\n")
endfunction()

# attnd_unity(TARGET): with ATTND_UNITY the sources of TARGET are compiled a dozen at a time, which takes a third of the time,
# because each header is read once for all of them. Names in their unnamed namespaces must then differ.
function(attnd_unity target)
  if(ATTND_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12)
    # GCC takes a source that another one includes for a header, whose types should have linkage.
    target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
  endif()
endfunction()
