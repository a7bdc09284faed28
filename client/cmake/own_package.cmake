# Copies the .proto file FROM to TO and renames its package to attnd.client.v1, the package of the client library's own
# messages. All files that it may import are in client/messages.
file(READ ${FROM} text)
string(REGEX REPLACE "\npackage (attnd.v1|google.protobuf);" "\npackage attnd.client.v1;" renamed "${text}")
if(renamed STREQUAL text)
  message(FATAL_ERROR "${FROM}: expected the package attnd.v1 or google.protobuf")
endif()
string(REGEX REPLACE "\nimport \"(attnd/v1|google/protobuf)/" "\nimport \"client/messages/" renamed "${renamed}")
string(REGEX REPLACE "([ (])google\\.protobuf\\." "\\1" renamed "${renamed}")
file(WRITE ${TO} "${renamed}")
