// The model part of tokenizer.json: byte-pair encoding of one piece of text into ids. Immutable after construction: any
// thread, one MergeSpace per thread. Throws Error naming what does not fit or is not supported.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>
#include <nlohmann/json_fwd.hpp>

namespace hansa::hf {

using TokenId = std::uint32_t;

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <class Value>
using TextMap = boost::unordered_flat_map<std::string, Value, TextHash, std::equal_to<>>;

struct MergeSpace {  // reused between pieces
  struct Symbol {
    TokenId id = 0;
    std::uint32_t previous = 0, next = 0;
    bool alive = true;
  };
  struct Candidate {
    std::uint32_t rank = 0, position = 0;
    TokenId merged = 0;
    bool operator<(const Candidate& other) const {  // the best one is the greatest
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

class BytePairs {
 public:
  explicit BytePairs(const nlohmann::json& model);
  std::optional<TokenId> find(std::string_view token) const;
  const TextMap<TokenId>& vocabulary() const { return vocabulary_; }
  // Appends the ids of a piece (valid UTF-8). Time n log n. As in the reference, a character without a token, a byte token or
  // an unknown token vanishes.
  void encode(std::string_view piece, MergeSpace& space, std::vector<TokenId>& ids) const;

 private:
  struct Merge {
    std::uint32_t rank = 0;
    TokenId merged = 0;
  };
  void read_vocabulary(const nlohmann::json& model);
  void read_merges(const nlohmann::json& model);
  void read_unknown(const nlohmann::json& model);
  void add_merge(const std::string& left, const std::string& right, std::uint32_t rank);
  void start_symbols(std::string_view piece, std::vector<MergeSpace::Symbol>& symbols) const;
  bool push_bytes(std::string_view character, std::vector<MergeSpace::Symbol>& symbols) const;
  const Merge* merge_of(TokenId left, TokenId right) const;

  TextMap<TokenId> vocabulary_;
  boost::unordered_flat_map<std::uint32_t, TokenId> id_of_character_;  // by code point
  boost::unordered_flat_map<std::uint64_t, Merge> merges_;             // by (left id, right id)
  std::array<std::optional<TokenId>, 256> byte_tokens_;                // "<0x41>": with byte_fallback only
  std::optional<TokenId> unknown_;
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
};

}  // namespace hansa::hf
