# attnd_room(PATH [FOLDER folder] [SOURCES files...] [PUBLIC targets...] [PRIVATE targets...])
#
# A room of the source tree as a static library. Its headers are included as "PATH/file.h"; its target is PATH with
# underscores: the room server/net is attnd_server_net. FOLDER is where it stands, if not in the current folder.
#
# PUBLIC are the targets that its headers include, PRIVATE those that only its sources do. Each room is seen through an
# include folder of its own, so including a room that is not named, directly or by a header, fails to build. What a
# header brings along is visible to everyone who includes it, so tests/checks/arrows.py holds that each room names
# itself what it includes.
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
  else()
    add_library(attnd_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(attnd_${name} ${scope} $<BUILD_INTERFACE:${view}>)
  target_link_libraries(attnd_${name} ${scope} ${ROOM_PUBLIC})
  attnd_names(${path} attnd_${name} ${ROOM_PUBLIC} ${ROOM_PRIVATE})
endfunction()

# attnd_view(PATH FOLDER OUT): sets OUT to an include folder in which FOLDER is PATH and nothing else is seen.
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

# attnd_names(PATH TARGET targets...): the room PATH is TARGET and uses these targets, rooms among them.
function(attnd_names path target)
  string(JOIN " " line ${path} ${target} ${ARGN})
  set_property(GLOBAL APPEND PROPERTY ATTND_ARROWS "${line}")
endfunction()

# attnd_write_arrows(FILE): a line for each room that was named: its path, its target, and the targets it uses.
function(attnd_write_arrows file)
  get_property(lines GLOBAL PROPERTY ATTND_ARROWS)
  string(JOIN "\n" text ${lines})
  file(WRITE ${file} "${text}\n")
endfunction()
