foreach(reader safetensors gguf json_model hf_checkpoint)
  attnd_fuzz(fuzz_${reader} SOURCES ${reader}_fuzz.cc DEPS attnd_model
             CORPUS ${CMAKE_CURRENT_SOURCE_DIR}/${reader}_corpus)
endforeach()
