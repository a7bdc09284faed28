if(TARGET attnd_codec_check)
  attnd_fuzz(fuzz_codec_request SOURCES codec_request_fuzz.cc DEPS attnd_codec_check
             CORPUS ${CMAKE_CURRENT_SOURCE_DIR}/codec_request_corpus)
endif()
