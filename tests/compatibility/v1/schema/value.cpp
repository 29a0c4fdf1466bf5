#include <hansa/value.hpp>

#include <algorithm>
#include <stdexcept>

namespace hansa {

struct Value::Node {
  HansaValue raw{};
  std::string text;
  std::vector<Value> items;
  std::vector<std::string> keys;
  std::vector<const HansaValue*> item_pointers;
  std::vector<const char*> key_pointers;
};

Value::Value(HansaType type) : node_(std::make_unique<Node>()) {
  node_->raw.struct_size = sizeof(HansaValue);
  node_->raw.type = type;
}
Value::Value() : Value(HANSA_TABLE) {}
Value::~Value() = default;
Value::Value(const Value& other) : Value(other.type()) {
  node_->raw = other.node_->raw;
  node_->text = other.node_->text;
  node_->items = other.node_->items;
  node_->keys = other.node_->keys;
  relink();
}
Value::Value(Value&&) noexcept = default;
// The node keeps its place: a table that holds this value points at it.
Value& Value::operator=(Value other) noexcept {
  if (node_) {
    std::swap(*node_, *other.node_);
    relink();
  } else {
    node_ = std::move(other.node_);
  }
  return *this;
}

// Every pointer of the C struct is set afresh: strings and vectors may have moved.
void Value::relink() {
  auto& n = *node_;
  n.raw.text = {n.text.data(), n.text.size()};
  n.item_pointers.clear();
  n.key_pointers.clear();
  for (const auto& item : n.items) n.item_pointers.push_back(&item.node_->raw);
  for (const auto& key : n.keys) n.key_pointers.push_back(key.c_str());
  n.raw.items = n.item_pointers.data();
  n.raw.keys = n.keys.empty() ? nullptr : n.key_pointers.data();
  n.raw.count = static_cast<std::uint32_t>(n.items.size());
}

Value Value::boolean(bool value) {
  Value v(HANSA_BOOL);
  v.node_->raw.integer = value ? 1 : 0;
  return v;
}
Value Value::integer(std::int64_t value) {
  Value v(HANSA_INT);
  v.node_->raw.integer = value;
  return v;
}
Value Value::real(double value) {
  Value v(HANSA_REAL);
  v.node_->raw.real = value;
  return v;
}
Value Value::text(std::string value) {
  Value v(HANSA_TEXT);
  v.node_->text = std::move(value);
  v.relink();
  return v;
}
Value Value::choice(std::string value) {
  auto v = text(std::move(value));
  v.node_->raw.type = HANSA_CHOICE;
  return v;
}
Value Value::bytes(std::uint64_t value) {
  Value v(HANSA_BYTES);
  v.node_->raw.integer = static_cast<std::int64_t>(value);
  return v;
}
Value Value::seconds(double value) {
  Value v(HANSA_DURATION);
  v.node_->raw.real = value;
  return v;
}
Value Value::path(std::string value) {
  auto v = text(std::move(value));
  v.node_->raw.type = HANSA_PATH;
  return v;
}
Value Value::list(std::vector<Value> items) {
  Value v(HANSA_LIST);
  v.node_->items = std::move(items);
  v.relink();
  return v;
}
Value Value::table(std::vector<std::pair<std::string, Value>> entries) {
  Value v(HANSA_TABLE);
  for (auto& [key, value] : entries) v.set(std::move(key), std::move(value));
  return v;
}
Value Value::component(std::string name, std::vector<std::pair<std::string, Value>> entries, std::uint64_t traits) {
  auto v = table(std::move(entries));
  v.node_->raw.type = HANSA_COMPONENT;
  v.node_->raw.integer = static_cast<std::int64_t>(traits);
  v.node_->text = std::move(name);
  v.relink();
  return v;
}
Value Value::copy(const HansaValue& from) {
  Value v(static_cast<HansaType>(from.type));
  v.node_->raw.integer = from.integer;
  v.node_->raw.real = from.real;
  v.node_->text = std::string(text_of(from));
  for (std::uint32_t i = 0; i < from.count; ++i) {
    v.node_->items.push_back(copy(*from.items[i]));
    if (from.keys) v.node_->keys.emplace_back(from.keys[i]);
  }
  v.relink();
  return v;
}

HansaType Value::type() const { return static_cast<HansaType>(node_->raw.type); }
const HansaValue& Value::raw() const { return node_->raw; }
std::size_t Value::size() const { return node_->items.size(); }
const Value& Value::at(std::size_t index) const { return node_->items.at(index); }
Value& Value::at(std::size_t index) { return node_->items.at(index); }
const std::string& Value::key(std::size_t index) const { return node_->keys.at(index); }

void Value::push_back(Value value) {
  if (type() != HANSA_LIST) throw std::logic_error("push_back on a value that is no list");
  node_->items.push_back(std::move(value));
  relink();
}
const Value* Value::find(std::string_view key) const {
  const auto at = std::find(node_->keys.begin(), node_->keys.end(), key);
  return at == node_->keys.end() ? nullptr : &node_->items[static_cast<std::size_t>(at - node_->keys.begin())];
}
Value* Value::find(std::string_view key) { return const_cast<Value*>(std::as_const(*this).find(key)); }

void Value::set(std::string key, Value value) {
  if (type() != HANSA_TABLE && type() != HANSA_COMPONENT) throw std::logic_error("set on a value that is no table");
  if (auto* held = find(key)) {
    *held = std::move(value);
  } else {
    node_->keys.push_back(std::move(key));
    node_->items.push_back(std::move(value));
  }
  relink();
}
bool Value::erase(std::string_view key) {
  const auto at = std::find(node_->keys.begin(), node_->keys.end(), key);
  if (at == node_->keys.end()) return false;
  node_->items.erase(node_->items.begin() + (at - node_->keys.begin()));
  node_->keys.erase(at);
  relink();
  return true;
}

std::string_view text_of(const HansaValue& value) {
  return value.text.size == 0 ? std::string_view() : std::string_view(value.text.data, value.text.size);
}

const HansaValue* find(const HansaValue& table, std::string_view key) {
  if (!table.keys) return nullptr;
  for (std::uint32_t i = 0; i < table.count; ++i)
    if (key == table.keys[i]) return table.items[i];
  return nullptr;
}

bool equal(const HansaValue& a, const HansaValue& b) {
  if (a.type != b.type || a.count != b.count) return false;
  switch (a.type) {
    case HANSA_BOOL:
    case HANSA_INT:
    case HANSA_BYTES: return a.integer == b.integer;
    case HANSA_REAL:
    case HANSA_DURATION: return a.real == b.real;
    case HANSA_TEXT:
    case HANSA_CHOICE:
    case HANSA_PATH: return text_of(a) == text_of(b);
    case HANSA_LIST:
      for (std::uint32_t i = 0; i < a.count; ++i)
        if (!equal(*a.items[i], *b.items[i])) return false;
      return true;
    case HANSA_TABLE:
    case HANSA_COMPONENT:
      if (text_of(a) != text_of(b)) return false;
      for (std::uint32_t i = 0; i < a.count; ++i) {
        const auto* other = find(b, a.keys[i]);
        if (!other || !equal(*a.items[i], *other)) return false;
      }
      return true;
    default: return false;
  }
}

const char* name_of(HansaType type) {
  switch (type) {
    case HANSA_BOOL: return "boolean";
    case HANSA_INT: return "integer";
    case HANSA_REAL: return "number";
    case HANSA_TEXT: return "text";
    case HANSA_CHOICE: return "choice";
    case HANSA_BYTES: return "byte size";
    case HANSA_DURATION: return "duration";
    case HANSA_PATH: return "path";
    case HANSA_LIST: return "list";
    case HANSA_TABLE: return "table";
    case HANSA_COMPONENT: return "component";
  }
  return "unknown type";
}

}  // namespace hansa
