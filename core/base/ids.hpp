// Names become numbers here, the same way in every process.
#pragma once
#include <string_view>

#include <hansa/types.hpp>

namespace hansa {

// Order-independent identity of a node: 63 bits of XXH3 over its name, so that no arrival order can change a reduction.
NodeId node_id(std::string_view name);
// 1 to 64 of [A-Za-z0-9._-], not starting with a dot or dash: safe as a file name.
bool is_node_name(std::string_view name);

}  // namespace hansa
