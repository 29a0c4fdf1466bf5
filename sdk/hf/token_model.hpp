// The model part of tokenizer.json: one piece of text to ids. BytePairs, Unigram and Words (WordPiece, WordLevel) are the
// kinds. Immutable after construction: any thread, one ModelSpace per thread. Throws Error naming what does not fit or is
// not supported.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
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

struct ModelSpace {  // reused between pieces
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
  struct Arrival {  // the best way to a place in the piece
    double score = 0;
    std::uint32_t from = 0;
    TokenId id = 0;
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<Arrival> arrivals;
  std::string text;
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  // Appends the ids of a piece of valid UTF-8.
  virtual void encode(std::string_view piece, ModelSpace& space, std::vector<TokenId>& ids) const = 0;
  virtual std::optional<TokenId> find(std::string_view token) const = 0;
  virtual std::size_t count() const = 0;  // of tokens: the id that the first added one gets
  virtual void for_each(const std::function<void(std::string_view, TokenId)>& token) const = 0;
};

// Files of old versions have no type.
std::unique_ptr<TokenModel> read_token_model(const nlohmann::json& model);

// ---- for the kinds

inline const std::string kModelWhere = "tokenizer.json: model";

// {"token": id, ...} with ids that are all different.
TextMap<TokenId> read_vocabulary(const nlohmann::json& model);
// The ids of "<0x00>" ... "<0xFF>", where the vocabulary has them.
std::array<std::optional<TokenId>, 256> byte_tokens(const TokenModel& model);

}  // namespace hansa::hf
