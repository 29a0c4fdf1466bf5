// A HansaValue tree as canonical JSON and back: keys sorted, no white space, numbers in the shortest form that reads back
// to the same bits. So equal values give equal text, and the text has one digest. JSON knows fewer types: sizes and
// durations come back as integers and reals, paths and choices as text, which every reader of parameters accepts (schema.hpp);
// a table with `use` comes back as a component. Throws Error on non-finite numbers, invalid UTF-8 and malformed text.
#pragma once
#include <string>
#include <string_view>

#include <hansa/value.hpp>

namespace hansa {

std::string to_json(const HansaValue&);
Value value_from_json(std::string_view);

}  // namespace hansa
