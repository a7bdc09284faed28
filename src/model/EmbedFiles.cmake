# attnd_embed_files(OUTPUT file...)
#
# Writes a source file that defines attnd::model::EmbeddedFiles() (model/embedded.h), with the text of each file under
# its stem.
function(attnd_embed_files output)
  set(entries "")
  foreach(file ${ARGN})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    get_filename_component(stem ${file} NAME_WE)
    file(READ ${file} text)
    string(APPEND entries "      {\"${stem}\", R\"embedded(${text})embedded\"},\n")
  endforeach()
  file(CONFIGURE OUTPUT ${output} @ONLY CONTENT [[
#include "model/embedded.h"

namespace attnd::model {

const std::vector<EmbeddedFile>& EmbeddedFiles() {
  static const auto& files = *new std::vector<EmbeddedFile>{
@entries@  };
  return files;
}

}  // namespace attnd::model
]])
endfunction()
