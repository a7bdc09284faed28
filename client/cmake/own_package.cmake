# Copies the .proto file FROM to TO with the package of the client library's own messages, attnd.client.v1. The files of
# all packages that it may import lie together in client/messages.
file(READ ${FROM} text)
string(REGEX REPLACE "\npackage (attnd.v1|google.protobuf);" "\npackage attnd.client.v1;" renamed "${text}")
if(renamed STREQUAL text)
  message(FATAL_ERROR "${FROM}: expected the package attnd.v1 or google.protobuf")
endif()
string(REGEX REPLACE "\nimport \"(attnd/v1|google/protobuf)/" "\nimport \"client/messages/" renamed "${renamed}")
string(REGEX REPLACE "([ (])google\\.protobuf\\." "\\1" renamed "${renamed}")
file(WRITE ${TO} "${renamed}")
