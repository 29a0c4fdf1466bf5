#include "config/pipeline_file.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <system_error>

#include <fmt/format.h>

#include "base/file.hpp"

namespace hansa::config {
namespace fs = std::filesystem;
namespace {

constexpr std::uintmax_t kLargestFile = 4u << 20;  // a pipeline is written by hand; more is a mistake, or an attack
constexpr std::size_t kMostFiles = 64;

// The text, or why not.
Result<std::string> read_text(const fs::path& path) {
  using R = Result<std::string>;
  std::error_code code;
  const auto status = fs::status(path, code);
  if (!fs::exists(status)) return R::failure("there is no such file");
  if (fs::is_directory(status)) return R::failure("it is a directory");
  if (fs::is_regular_file(status) && fs::file_size(path, code) > kLargestFile)
    return R::failure("it is larger than 4 MiB: a pipeline file is short");
  try {
    return read_file(path);
  } catch (const Error& e) {
    return R::failure(e.what());
  }
}

class Reader {
 public:
  Reader(PipelineFile::State& state, fs::path root) : state_(state), root_(std::move(root)) {}

  // The file with its includes below it; nothing after a syntax error or when it cannot be read.
  std::optional<Node> read(const fs::path& path, const std::string& shown, std::string text) {
    std::error_code code;
    auto identity = fs::canonical(path, code);
    if (code) identity = path;
    const int source =
        state_.sources.add({shown, std::move(text), fs::absolute(path).parent_path().lexically_normal()});
    ++files_;
    auto parsed = parse_toml(state_.sources, source);
    if (auto* problem = std::get_if<Diagnostic>(&parsed)) {
      state_.diagnostics.push_back(std::move(*problem));
      state_.parsed = false;
      return std::nullopt;
    }
    auto node = std::get<Node>(std::move(parsed));
    open_.push_back(identity);
    auto merged = with_includes(std::move(node), shown);
    open_.pop_back();
    return merged;
  }

 private:
  std::optional<Node> with_includes(Node node, const std::string& shown) {
    const auto at =
        std::find_if(node.entries.begin(), node.entries.end(), [](const auto& e) { return e.key == "include"; });
    if (at == node.entries.end()) return node;
    const auto include = std::move(at->value);
    node.entries.erase(at);
    Node under;
    const auto take = [&](const Node& name) {
      if (auto below = included(name, shown)) merge(under, std::move(*below));
    };
    if (include.kind == Node::Kind::List)
      std::for_each(include.items.begin(), include.items.end(), take);
    else
      take(include);
    if (!state_.parsed) return std::nullopt;
    merge(under, std::move(node));
    return under;
  }

  std::optional<Node> included(const Node& name, const std::string& shown) {
    const auto complain = [&](std::string what, std::string help) {
      state_.diagnostics.push_back(
          state_.sources.diagnose(Severity::Error, name.span, std::move(what), std::move(help)));
      return std::nullopt;
    };
    if (name.kind != Node::Kind::Text)
      return complain(fmt::format("`include` is {}, but must be a file name", name_of(name.kind)),
                      "write include = \"base.toml\", or a list of such names");
    const auto path = path_of(state_.sources, name.span, name.text);
    std::error_code code;
    const auto real = fs::weakly_canonical(path, code);
    const auto inside = fs::relative(real, root_, code);
    if (inside.empty() || *inside.begin() == "..")
      return complain(fmt::format("`{}` lies outside the config root {}", name.text, root_.string()),
                      "a file may include only what lies beside or below the file that was named on the command line");
    if (std::find(open_.begin(), open_.end(), real) != open_.end())
      return complain(fmt::format("`{}` includes itself, by way of this file", name.text),
                      "remove one of the includes");
    if (files_ >= kMostFiles) return complain(fmt::format("more than {} included files", kMostFiles), "include less");
    auto text = read_text(path);
    if (!text)
      return complain(fmt::format("cannot include `{}`: {}", name.text, text.error()),
                      fmt::format("it was looked for at {}", path.string()));
    const auto below = (fs::path(shown).parent_path() / name.text).lexically_normal().string();
    return read(path, below, std::move(text).value());
  }

  PipelineFile::State& state_;
  fs::path root_;
  std::vector<fs::path> open_;  // from the top file to this one
  std::size_t files_ = 0;
};

// ---- --set ----------------------------------------------------------------------------------------------------------

class Override {
 public:
  Override(PipelineFile::State& state, const std::string& text, const fs::path& directory)
      : state_(state), text_(text) {
    where_.source = state.sources.add({"--set " + text, "", directory});
  }

  void apply() {
    const auto equals = text_.find('=');
    if (equals == std::string::npos || equals == 0)
      return complain("this is no `key=value`", "write --set run.rounds=3");
    auto keys = split(text_.substr(0, equals));
    if (std::find(keys.begin(), keys.end(), "") != keys.end()) return complain("the key has an empty part", "");
    auto value = value_of(text_.substr(equals + 1));
    if (!value) return complain("the value is no TOML", "quote texts as \"…\" and close what is opened");
    place(state_.root, keys, 0, std::move(*value));
  }

 private:
  static std::vector<std::string> split(std::string_view dotted) {
    std::vector<std::string> parts;
    for (std::size_t at = 0; at <= dotted.size();) {
      const auto dot = std::min(dotted.find('.', at), dotted.size());
      parts.emplace_back(dotted.substr(at, dot - at));
      at = dot + 1;
    }
    return parts;
  }

  // TOML where it is TOML; a bare word is a text.
  std::optional<Node> value_of(const std::string& text) const {
    if (auto value = parse_toml_value(text, where_)) return value;
    if (!text.empty() && std::string_view("\"'[{").find(text[0]) != std::string_view::npos) return std::nullopt;
    if (first_invalid_utf8(text) != std::string::npos) return std::nullopt;
    Node word;
    word.kind = Node::Kind::Text;
    word.text = text;
    word.span = where_;
    return word;
  }

  static std::optional<std::size_t> index_of(const std::string& key) {
    std::size_t index = 0;
    const auto [end, code] = std::from_chars(key.data(), key.data() + key.size(), index);
    if (code != std::errc() || end != key.data() + key.size()) return std::nullopt;
    return index;
  }

  void place(Node& into, const std::vector<std::string>& keys, std::size_t depth, Node value) {
    if (depth == keys.size()) {
      into = std::move(value);
      return;
    }
    const auto& key = keys[depth];
    if (into.kind == Node::Kind::List) {
      const auto index = index_of(key);
      if (!index || *index > into.items.size())
        return complain(fmt::format("asks for item `{}` of a list that holds {}", key, into.items.size()),
                        into.items.empty() ? std::string("0 appends the first one")
                                           : fmt::format("use a number from 0 to {}; {} appends", into.items.size(),
                                                         into.items.size()));
      if (*index == into.items.size()) into.items.push_back(fresh(keys, depth + 1));
      return place(into.items[*index], keys, depth + 1, std::move(value));
    }
    if (into.kind != Node::Kind::Table)
      return complain(fmt::format("`{}` is {}: nothing can be set inside it", keys[depth - 1], name_of(into.kind)), "");
    if (!into.find(key)) into.entries.push_back({key, where_, fresh(keys, depth + 1)});
    auto* entry = into.find(key);
    if (depth + 1 == keys.size()) entry->key_span = where_;
    place(entry->value, keys, depth + 1, std::move(value));
  }

  // What a path needs that is not there yet: a list before a number, else a table.
  Node fresh(const std::vector<std::string>& keys, std::size_t next) const {
    Node node;
    node.span = where_;
    if (next < keys.size() && index_of(keys[next])) node.kind = Node::Kind::List;
    return node;
  }

  void complain(std::string what, std::string help) {
    state_.diagnostics.push_back(state_.sources.diagnose(Severity::Error, where_, std::move(what), std::move(help)));
  }

  PipelineFile::State& state_;
  const std::string& text_;
  Span where_;
};

}  // namespace

fs::path path_of(const Sources& sources, const Span& where, std::string_view text) {
  const fs::path path{std::string(text)};
  if (path.is_absolute() || where.source < 0) return path.lexically_normal();
  auto whole = (sources[where.source].directory / path).lexically_normal();
  return whole.has_filename() || !whole.has_relative_path() ? whole : whole.parent_path();  // no slash at the end
}

PipelineFile::PipelineFile() : state_(std::make_unique<State>()) {}
PipelineFile::~PipelineFile() = default;
PipelineFile::PipelineFile(PipelineFile&&) noexcept = default;
PipelineFile& PipelineFile::operator=(PipelineFile&&) noexcept = default;

bool PipelineFile::readable() const { return !state_->unreadable && state_->parsed; }

std::vector<fs::path> PipelineFile::plugin_path() const {
  std::vector<fs::path> paths;
  const auto* entry = state_->root.find("plugin_path");
  if (!entry) return paths;
  const auto take = [&](const Node& node) {
    if (node.kind == Node::Kind::Text && !node.text.empty())
      paths.push_back(path_of(state_->sources, node.span, node.text));
  };
  take(entry->value);
  for (const auto& item : entry->value.items) take(item);
  return paths;
}

PipelineFile read_pipeline(const fs::path& path, const LoadOptions& options) {
  PipelineFile file;
  auto& state = file.state();
  state.file = path;
  auto text = read_text(path);
  if (!text) {
    state.unreadable = true;
    Diagnostic problem;
    problem.where.file = path.string();
    problem.what = "cannot read this file: " + text.error();
    state.diagnostics.push_back(std::move(problem));
    return file;
  }
  std::error_code code;
  const auto root = fs::weakly_canonical(fs::absolute(path), code).parent_path();
  if (auto node = Reader(state, root).read(path, path.string(), std::move(text).value())) state.root = std::move(*node);
  const auto directory = options.working_directory.empty() ? fs::current_path(code) : options.working_directory;
  if (state.parsed)
    for (const auto& set : options.set) Override(state, set, directory).apply();
  return file;
}

}  // namespace hansa::config
