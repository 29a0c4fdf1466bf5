// `hansa data partition` and `hansa data render`.
#include <fcntl.h>

#include <algorithm>
#include <istream>
#include <limits>
#include <map>
#include <ostream>
#include <set>

#include <fmt/format.h>
#include <hf/tokenizer.hpp>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "base/file.hpp"
#include "base/rng.hpp"
#include "data/encode.hpp"
#include "data/format.hpp"
#include "data/partition.hpp"
#include "data/records.hpp"
#include "data_command.hpp"
#include "report/table.hpp"

namespace hansa {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Where the records of a collection lie; the text stays in its files.
class Collection {
 public:
  explicit Collection(const PartitionOptions& options) : options_(options) {
    extension_ = extension_of(options.input);
    for (const auto& path : data::files_of(options.input, extension_)) {
      const auto file = static_cast<std::uint32_t>(files_.size());
      files_.emplace_back(path);
      names_.push_back(path.filename().string());
      const std::string_view text(reinterpret_cast<const char*>(files_.back().bytes().data()),
                                  files_.back().bytes().size());
      const data::EachRecord each = [&](const data::Record& record) {
        records_.push_back(record.text);
        if (!options.field.empty()) labels_.push_back(label_of(record, file, path, text));
      };
      lines() ? data::cut_lines(text, each) : data::cut_documents(text, options.separator, each);
    }
    if (records_.empty()) throw Error(fmt::format("{} holds no records", options.input.string()));
    number_labels();
  }
  bool lines() const { return extension_ == ".jsonl"; }
  const std::string& extension() const { return extension_; }
  std::size_t size() const { return records_.size(); }
  std::string_view record(std::size_t i) const { return records_[i]; }
  const std::vector<std::uint32_t>& labels() const { return labels_; }  // empty without a field
  const std::vector<std::string>& label_names() const { return label_names_; }
  std::string digest() const {
    std::string text;
    for (std::size_t i = 0; i < files_.size(); ++i)
      text += fmt::format("{} {}\n", names_[i], xxh3_128(files_[i].bytes()).hex());
    return sha256_hex(text).substr(0, 32);
  }

 private:
  static std::string extension_of(const fs::path& input) {
    if (!fs::is_directory(input)) return input.extension() == ".jsonl" ? ".jsonl" : ".txt";
    std::set<std::string> found;
    for (const auto& entry : fs::directory_iterator(input))
      if (const auto one = entry.path().extension().string(); one == ".jsonl" || one == ".txt") found.insert(one);
    if (found.size() != 1)
      throw Error(
          fmt::format("{} holds {}", input.string(),
                      found.empty() ? "neither .txt nor .jsonl files" : ".txt and .jsonl files; keep one kind"));
    return *found.begin();
  }
  // As a number in the order of appearance.
  std::uint32_t label_of(const data::Record& record, std::uint32_t file, const fs::path& path, std::string_view text) {
    std::string value;
    if (!lines()) {
      if (options_.field != "file")
        throw Error(fmt::format("{}: plain text has no field \"{}\"; only \"file\", the file's name", path.string(),
                                options_.field));
      value = names_[file];
    } else {
      try {
        auto found = data::field_text(record.text, options_.field);
        if (!found) throw data::BadRecord(fmt::format("there is no field \"{}\"", options_.field));
        value = std::move(*found);
      } catch (const data::BadRecord& bad) {
        throw Error(fmt::format("{}: {}", data::place_of(path, text, record.offset), bad.what()));
      }
    }
    return numbers_.try_emplace(std::move(value), static_cast<std::uint32_t>(numbers_.size())).first->second;
  }
  void number_labels() {  // in the order of their names
    std::vector<std::uint32_t> sorted(numbers_.size());
    for (const auto& [name, number] : numbers_) {
      sorted[number] = static_cast<std::uint32_t>(label_names_.size());
      label_names_.push_back(name);
    }
    for (auto& label : labels_) label = sorted[label];
  }

  const PartitionOptions& options_;
  std::string extension_;
  std::vector<MappedFile> files_;
  std::vector<std::string> names_, label_names_;
  std::vector<std::string_view> records_;  // into the maps
  std::vector<std::uint32_t> labels_;
  std::map<std::string, std::uint32_t> numbers_;
};

void need_field(const PartitionOptions& options) {
  if (options.field.empty())
    throw Error(
        fmt::format("--by {} needs --field NAME: what a record's label is (plain text: --field file)", options.by));
}
void need_nodes(const PartitionOptions& options) {
  if (options.nodes == 0) throw Error(fmt::format("--by {} needs --nodes N", options.by));
}

struct Dealt {
  data::Assignment node_of;
  std::size_t nodes = 0;
  std::uint64_t seed = 0;  // of the draw that gave each node enough
};

data::Assignment draw(const PartitionOptions& options, const Collection& all, std::size_t nodes, std::uint64_t seed) {
  if (options.by == "dirichlet") return data::deal_by_dirichlet(all.labels(), nodes, options.alpha, seed);
  if (options.by == "quantity") return data::deal_by_quantity(all.size(), nodes, options.alpha, seed);
  if (options.by == "shards") return data::deal_by_shards(all.labels(), nodes, options.shards, seed);
  if (options.by == "field") return data::deal_by_value(all.labels(), nodes);
  return data::deal_evenly(all.size(), nodes, seed);
}

Dealt deal(const PartitionOptions& options, const Collection& all) {
  constexpr std::uint64_t kAttempts = 200;
  const auto nodes = options.nodes > 0 ? options.nodes : all.label_names().size();
  std::size_t most = 0;
  for (std::uint64_t attempt = 0; attempt < kAttempts; ++attempt) {
    const auto seed = attempt == 0 ? options.seed : derive_seed(options.seed, "partition.again", {attempt});
    auto node_of = draw(options, all, nodes, seed);
    const auto least = data::smallest_share(node_of, nodes);
    if (least >= options.least) return {std::move(node_of), nodes, seed};
    most = std::max(most, least);
  }
  throw Error(
      fmt::format("no partition of {} records to {} nodes left each with {} or more; the best of {} left one with {}. "
                  "Raise --alpha, "
                  "lower --nodes or --least",
                  all.size(), nodes, options.least, kAttempts, most));
}

// What the node is called: its value where it stands for one and the value can be a file's name.
std::vector<std::string> names_of(const PartitionOptions& options, const Collection& all, std::size_t nodes) {
  std::vector<std::string> names;
  const int digits = static_cast<int>(std::to_string(nodes - 1).size());
  std::set<std::string> taken;
  for (std::size_t node = 0; node < nodes; ++node) {
    std::string name;
    if (options.by == "field" && nodes == all.label_names().size())
      for (const char c :
           options.field == "file" ? fs::path(all.label_names()[node]).stem().string() : all.label_names()[node])
        name += (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ? c : '-';
    if (name.empty() || name.size() > 40 || name[0] == '-' || !taken.insert(name).second)
      name = fmt::format("node{:0{}}", node, digits);
    taken.insert(name);
    names.push_back(name);
  }
  return names;
}

class Silo {  // one node's files, written as records come
 public:
  Silo(fs::path path, const Collection& all, std::string separator)
      : path_(std::move(path)), separator_(all.lines() ? "" : separator + "\n") {}
  ~Silo() = default;
  Silo(Silo&&) = default;
  void add(std::string_view record) {
    if (count_++ > 0) held_ += separator_;
    held_ += record;
    held_ += '\n';
    bytes_ += record.size();
    if (held_.size() > (1 << 16)) flush();
  }
  void flush() {  // opened for each: there may be more nodes than a process may have files open
    if (held_.empty()) return;
    const auto file = open_file(path_, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    write_all(file.get(), std::as_bytes(std::span(held_)), path_);
    held_.clear();
  }
  std::uint64_t count() const { return count_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  fs::path path_;
  std::string separator_, held_;
  std::uint64_t count_ = 0, bytes_ = 0;
};

Json write_silos(const PartitionOptions& options, const Collection& all, const Dealt& dealt, const fs::path& folder) {
  const auto names = names_of(options, all, dealt.nodes);
  fs::create_directories(folder / "silos");
  if (options.heldout > 0) fs::create_directories(folder / "heldout");
  std::vector<Silo> silos, heldout;
  std::vector<std::map<std::string, std::uint64_t>> labels(dealt.nodes);
  for (const auto& name : names) {
    silos.emplace_back(folder / "silos" / (name + all.extension()), all, options.separator);
    heldout.emplace_back(folder / "heldout" / (name + all.extension()), all, options.separator);
  }
  SplitMix64 random(derive_seed(options.seed, "partition.heldout"));
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto node = dealt.node_of[i];
    const bool held_out = options.heldout > 0 && random.uniform() < options.heldout && silos[node].count() > 0;
    (held_out ? heldout : silos)[node].add(all.record(i));
    if (!all.labels().empty()) ++labels[node][all.label_names()[all.labels()[i]]];
  }
  Json nodes = Json::array();
  for (std::size_t node = 0; node < dealt.nodes; ++node) {
    silos[node].flush();
    heldout[node].flush();
    nodes.push_back({{"name", names[node]}, {"records", silos[node].count()}, {"bytes", silos[node].bytes()}});
    if (options.heldout > 0) nodes.back()["heldout"] = heldout[node].count();
    if (!all.labels().empty()) nodes.back()["labels"] = labels[node];
  }
  return nodes;
}

Json manifest_of(const PartitionOptions& options, const Collection& all, const Dealt& dealt) {
  Json manifest{{"input", options.input.filename().string()},
                {"digest", all.digest()},
                {"records", all.size()},
                {"by", options.by},
                {"seed", options.seed}};
  if (dealt.seed != options.seed) manifest["seed_used"] = dealt.seed;
  if (!options.field.empty()) manifest["field"] = options.field;
  if (options.by == "dirichlet" || options.by == "quantity") manifest["alpha"] = options.alpha;
  if (options.by == "shards") manifest["shards"] = options.shards;
  if (options.heldout > 0) manifest["heldout"] = options.heldout;
  return manifest;
}

}  // namespace

int partition_data(const PartitionOptions& options, std::ostream& out) {
  if (options.by == "dirichlet" || options.by == "shards" || options.by == "field") need_field(options);
  if (options.by != "field") need_nodes(options);
  if (fs::exists(options.out) && !(fs::is_directory(options.out) && fs::is_empty(options.out)))
    throw Error(fmt::format("{} exists already; name a new folder", options.out.string()));
  const Collection all(options);
  const auto dealt = deal(options, all);
  auto part = options.out;
  part += ".part";
  fs::remove_all(part);
  auto manifest = manifest_of(options, all, dealt);
  manifest["nodes"] = write_silos(options, all, dealt, part);
  write_file_atomically(part / "manifest.json", manifest.dump(2) + "\n", Durability::Process);
  rename_into_place(part, options.out, Durability::Process);
  if (options.json) {
    out << manifest.dump() << '\n';
    return 0;
  }
  Table table({{"node", Table::Align::Left}, {"records"}, {"bytes"}, {"held out"}});
  for (const auto& node : manifest["nodes"])
    table.row({node["name"], std::to_string(node["records"].get<std::uint64_t>()),
               std::to_string(node["bytes"].get<std::uint64_t>()),
               std::to_string(node.value("heldout", std::uint64_t{0}))});
  out << table.text()
      << fmt::format("Simulate with them: [simulation] nodes_from = \"{}\"\n",
                     fs::absolute(options.out / "silos").string());
  return 0;
}

int render_conversations(const RenderOptions& options, std::istream& in, std::ostream& out) {
  const hf::HfTokenizer tokenizer(options.model);
  const auto& format =
      options.chat_template == "auto" ? data::chat_format_of(tokenizer) : data::chat_format(options.chat_template);
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    try {
      const auto messages = data::parse_messages(line);
      data::Draft draft{
          .frame = data::Draft::Frame::Conversation,
          .pieces = data::render(format, messages, options.open ? data::Ending::OpenForReply : data::Ending::Closed)};
      const auto encoded = data::encode(draft, tokenizer, std::numeric_limits<std::int64_t>::max());
      std::vector<std::int64_t> ids;
      std::vector<int> learnt;
      for (const auto token : encoded.tokens) {
        ids.push_back(data::id_of(token));
        learnt.push_back(token >= 0);
      }
      out << Json{{"text", data::text_of(draft.pieces, tokenizer)}, {"ids", ids}, {"learnt", learnt}}.dump() << '\n';
    } catch (const data::BadRecord& bad) {
      throw Error(fmt::format("line {}: {}", number, bad.what()));
    }
  }
  return 0;
}

}  // namespace hansa
