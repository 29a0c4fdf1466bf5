#include "adapters/targets.hpp"

#include <algorithm>
#include <charconv>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.hpp"

namespace hansa::adapters {

namespace {

constexpr std::string_view kAuto = "auto";

std::string words_of(const Wanted& wanted) {
  std::string words;
  if (!wanted.all.empty()) words += fmt::format(", or say \"{}\"", wanted.all);
  if (!wanted.usual.empty()) words += fmt::format(", or say \"{}\"", kAuto);
  return words;
}

[[noreturn]] void nothing_matches(const Wanted& wanted, const std::string& target, std::span<const Module> modules) {
  std::set<std::string> ends;
  for (const auto& module : modules)
    if (wanted.fits(module)) ends.insert(module.name.substr(module.name.rfind('.') + 1));
  if (ends.empty()) throw Error(fmt::format("{}: this model has no {}", wanted.adapter, wanted.what));
  throw Error(fmt::format("{}: target '{}' matches no module of this model; {} end in {}{}", wanted.adapter, target,
                          wanted.what, fmt::join(ends, ", "), words_of(wanted)));
}

bool matches(const Wanted& wanted, const std::string& target, const Module& module) {
  if (!wanted.all.empty() && target == wanted.all) return (wanted.of_all ? wanted.of_all : wanted.fits)(module);
  if (!wanted.usual.empty() && target == kAuto)
    return wanted.fits(module) &&
           std::ranges::any_of(wanted.usual, [&](auto end) { return ends_like(module.name, end); });
  return ends_like(module.name, target);
}

void check_target(const Wanted& wanted, const std::string& target, std::span<const Module> modules) {
  bool found = false;
  for (const auto& module : modules) {
    if (!matches(wanted, target, module)) continue;
    if (!wanted.fits(module))
      throw Error(fmt::format("{}: target '{}' names '{}', which is none of the {} that it works on", wanted.adapter,
                              target, module.name, wanted.what));
    found = true;
  }
  if (!found) nothing_matches(wanted, target, modules);
}

std::set<std::int64_t> blocks_of(const Wanted& wanted, const Choice& choice, std::span<const Module> modules) {
  std::int64_t count = 0;
  for (const auto& module : modules) count = std::max(count, block_of(module.name).value_or(-1) + 1);
  std::set<std::int64_t> blocks;
  for (auto block : choice.blocks) {
    const auto counted = block < 0 ? block + count : block;
    if (counted < 0 || counted >= count)
      throw Error(fmt::format("{}: there is no block {}; this model has {}, from 0", wanted.adapter, block, count));
    blocks.insert(counted);
  }
  return blocks;
}

}  // namespace

bool is_linear(const Module& module) { return module.kind == Module::Kind::Linear; }
bool is_linear_or_head(const Module& module) { return is_linear(module) || module.kind == Module::Kind::Head; }

bool ends_like(std::string_view name, std::string_view target) {
  return name == target || (name.ends_with(target) && name[name.size() - target.size() - 1] == '.');
}

std::optional<std::int64_t> block_of(std::string_view module) {
  while (!module.empty()) {
    const auto dot = std::min(module.find('.'), module.size());
    std::int64_t number = 0;
    const auto [end, failure] = std::from_chars(module.data(), module.data() + dot, number);
    if (failure == std::errc{} && end == module.data() + dot) return number;
    module.remove_prefix(std::min(dot + 1, module.size()));
  }
  return std::nullopt;
}

std::vector<Module> choose(const Wanted& wanted, const Choice& choice, std::span<const Module> modules) {
  if (choice.targets.empty())
    throw Error(fmt::format("{}: targets is empty; name modules{}", wanted.adapter, words_of(wanted)));
  for (const auto& target : choice.targets) check_target(wanted, target, modules);
  const auto blocks = blocks_of(wanted, choice, modules);
  std::vector<Module> found;
  for (const auto& module : modules) {
    const auto block = block_of(module.name);
    if (!blocks.empty() && (!block || !blocks.contains(*block))) continue;
    if (std::ranges::any_of(choice.targets, [&](const std::string& target) { return matches(wanted, target, module); }))
      found.push_back(module);
  }
  if (found.empty())
    throw Error(fmt::format("{}: targets {} match no module of blocks {}", wanted.adapter,
                            fmt::join(choice.targets, ", "), fmt::join(choice.blocks, ", ")));
  return found;
}

std::vector<std::string> shortest_targets(std::span<const Module> all, const std::vector<std::string>& chosen,
                                          Ends ends) {
  const std::set<std::string> wanted(chosen.begin(), chosen.end());
  auto exact = [&](std::string_view end) {
    return std::ranges::all_of(all, [&](const Module& m) {
      const bool matched = ends == Ends::Dotted ? ends_like(m.name, end) : m.name.ends_with(end);
      return !matched || wanted.contains(m.name);
    });
  };
  std::set<std::string> targets;
  for (const auto& name : wanted) {
    auto dot = name.rfind('.');
    while (dot != std::string::npos && !exact(std::string_view(name).substr(dot + 1)))
      dot = dot == 0 ? std::string::npos : name.rfind('.', dot - 1);
    targets.insert(dot == std::string::npos ? name : name.substr(dot + 1));
  }
  return {targets.begin(), targets.end()};
}

}  // namespace hansa::adapters
