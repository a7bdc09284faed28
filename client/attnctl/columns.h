// Tables for people.
#pragma once

#include <string>
#include <vector>

namespace attnd::ctl {

// A line for each row, its columns as wide as their widest cell. All rows have as many cells as the first.
std::string Columns(const std::vector<std::vector<std::string>>& rows);

}  // namespace attnd::ctl
