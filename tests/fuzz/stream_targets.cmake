if(TARGET attnd_server_attention)
  attnd_fuzz(fuzz_stream_state SOURCES stream_state_fuzz.cc DEPS attnd_server_attention
             CORPUS ${CMAKE_CURRENT_SOURCE_DIR}/stream_state_corpus)
endif()
