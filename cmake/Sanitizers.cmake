# ATTND_SANITIZE: builds everything with the sanitizers named, e.g. address,undefined or thread.
if(NOT ATTND_SANITIZE)
  return()
endif()
add_compile_options(-fsanitize=${ATTND_SANITIZE} -fno-omit-frame-pointer -g1)
add_link_options(-fsanitize=${ATTND_SANITIZE})

if(ATTND_SANITIZE MATCHES thread)
  # What Abseil's locks do, said to ThreadSanitizer; one --wrap for each function that the file replaces.
  set(source ${CMAKE_CURRENT_LIST_DIR}/tsan/absl_synchronization.cc)
  file(READ ${source} text)
  string(REGEX MATCHALL "ABSL_MUTEX\\([0-9]+[A-Za-z0-9_]+\\)|_ZNK?4absl7debian3[A-Za-z0-9_]+" names "${text}")
  foreach(name ${names})
    string(REGEX REPLACE "^ABSL_MUTEX\\((.*)\\)$" "_ZN4absl7debian35Mutex\\1" name ${name})
    add_link_options(-Wl,--wrap=${name})
  endforeach()
  add_library(attnd_tsan OBJECT ${source} ${CMAKE_CURRENT_LIST_DIR}/tsan/grpc.cc)
  link_libraries($<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:$<TARGET_OBJECTS:attnd_tsan>>)
endif()
