# Included with BUILD_SHARED_LIBS. The library exports what the public headers declare: public names begin with a
# capital letter, inner namespaces with a small letter (shared.map). Before 1.0, every minor version may change the
# interface.
set(map ${CMAKE_CURRENT_LIST_DIR}/shared.map)
set_target_properties(attnd_client PROPERTIES VERSION ${PROJECT_VERSION}
                      SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} LINK_DEPENDS ${map})
target_link_options(attnd_client PRIVATE LINKER:--version-script=${map} LINKER:--no-undefined
                    LINKER:-z,nodelete)
