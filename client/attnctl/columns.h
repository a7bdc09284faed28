// Tables as text.
#pragma once

#include <string>
#include <vector>

namespace attnd::ctl {

// One line for each row; columns are as wide as their widest cell. All rows must have as many cells as the first.
std::string Columns(const std::vector<std::vector<std::string>>& rows);

}  // namespace attnd::ctl
