# Installs the library: find_package(attnd CONFIG) defines attnd::client; pkg-config knows it as attnd-client.
include(CMakePackageConfigHelpers)

install(TARGETS attnd_client EXPORT attndTargets COMPONENT client
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/include/attnd DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT client)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/proto/attnd DESTINATION ${CMAKE_INSTALL_DATADIR}/attnd/proto COMPONENT client
        FILES_MATCHING PATTERN "*.proto")

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/attnd)
install(EXPORT attndTargets NAMESPACE attnd:: DESTINATION ${package} COMPONENT client)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/attndConfig.cmake.in attndConfig.cmake
                              INSTALL_DESTINATION ${package})
write_basic_package_version_file(attndConfigVersion.cmake COMPATIBILITY SameMinorVersion)
# Users of the static library must link its dependencies; the shared library is linked with them.
set(ATTND_PC_STATIC " grpc++ protobuf-lite")
set(ATTND_PC_SHARED "")
if(BUILD_SHARED_LIBS)
  set(ATTND_PC_STATIC "")
  set(ATTND_PC_SHARED "grpc++ protobuf-lite")
endif()
file(RELATIVE_PATH ATTND_PREFIX_FROM_PC ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(${CMAKE_CURRENT_LIST_DIR}/attnd-client.pc.in attnd-client.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/attndConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/attndConfigVersion.cmake
        DESTINATION ${package} COMPONENT client)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/attnd-client.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig
        COMPONENT client)
