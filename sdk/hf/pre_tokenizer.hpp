// The pre_tokenizer part of tokenizer.json: cuts a text into pieces that are encoded by themselves. All that the reference
// knows but UnicodeScripts. Immutable: any thread, one PieceSpace per thread.
#pragma once
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "hf/split_pattern.hpp"

namespace hansa::hf {

struct PieceSpace {
  struct Level {  // of the step with the same index
    std::vector<TextRange> found, parts;
    std::string text;
  };
  MatchSpace match;
  std::deque<Level> levels;
};

class PreTokenizer {
 public:
  explicit PreTokenizer(const nlohmann::json& part);  // throws Error naming what it does not support
  // Where a stretch of text stands: Metaspace can ask for a mark at the beginning only.
  enum class Place { Beginning, Later };
  // Calls `piece` for each piece, in order; the view is valid during the call.
  void run(std::string_view text, Place place, PieceSpace& space,
           const std::function<void(std::string_view)>& piece) const;
  // Pieces are still bytes: the last step, which writes them in the byte alphabet, is left to the caller, who can so look up
  // a piece before it is mapped.
  bool leaves_bytes() const { return leaves_bytes_; }

 private:
  enum class Behavior { Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous };
  struct Split {
    SplitPattern pattern;
    Behavior behavior = Behavior::Isolated;
    bool invert = false;
  };
  struct PrefixSpace {};
  struct MapBytes {};
  struct Metaspace {  // spaces become the mark, and one is put before
    enum class Prepend { Always, First, Never };
    std::string mark;
    Prepend prepend = Prepend::Always;
  };
  struct FixedLength {
    std::size_t length = 0;  // code points
  };
  using Step = std::variant<Split, PrefixSpace, MapBytes, Metaspace, FixedLength>;

  void add(const nlohmann::json& part);
  void add_split(const nlohmann::json& part);
  void add_byte_level(const nlohmann::json& part);
  void add_metaspace(const nlohmann::json& part);
  void add_set(const CodePointSet& set, Behavior behavior);
  static Behavior behavior_of(const std::string& name);
  static void cut(const Split& split, std::string_view text, const std::vector<TextRange>& found,
                  std::vector<TextRange>& parts);
  static void cut_evenly(std::size_t length, std::string_view text, std::vector<TextRange>& parts);
  void run_from(std::size_t step, std::string_view text, Place place, PieceSpace& space,
                const std::function<void(std::string_view)>& piece) const;

  std::vector<Step> steps_;
  bool leaves_bytes_ = false;
};

}  // namespace hansa::hf
