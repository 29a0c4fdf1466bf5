// Linear places that share an input, as one matrix [W | s·B]: with x_joined = [x | x Aᵀ] one product gives what the base and the
// low-rank pairs add up to, and one gives the gradients of x and of x Aᵀ. The places' own weights become views of that
// matrix, so that nothing is held twice. Owned by Blocks; training thread only.
#pragma once
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "nn/places.hpp"

namespace hansa::nn::fast {

struct Pair {  // a low-rank pair, and where it stands in the joined matrix
  at::Tensor A, B;
  double scale = 1;
  std::int64_t column = 0, rank = 0, row = 0, out = 0;
};
struct Pairs {  // of all places of one matrix, as they were when the pass began
  std::vector<Pair> all;
  std::int64_t columns = 0;
};
struct PairGradients {  // in the order of Pairs::all; undefined where none was asked for
  std::vector<at::Tensor> A, B;
};

class Joined {
 public:
  Joined() = default;
  explicit Joined(std::vector<Place*> places);
  bool any() const { return !places_.empty(); }
  std::int64_t in() const { return in_; }
  std::int64_t out() const { return out_; }
  const std::vector<Place*>& places() const { return places_; }
  std::int64_t row(std::size_t place) const { return rows_[place]; }

  Pairs pairs() const;  // of the injections that the places have now
  // Writes the pairs beside the weight. Every product until the next call is with these.
  void take(const Pairs&, at::ScalarType);
  std::uint64_t takes() const { return takes_; }  // so far: whether what was taken still stands

  // x [rows, in + columns], whose first columns are set: sets the others, and y = x [W | s·B]ᵀ.
  void forward(at::Tensor& y, at::Tensor& x) const;
  void inner(at::Tensor& x) const;  // only x's other columns
  // dx [rows, in + columns], of which the first columns become the gradient of x, the others that of x Aᵀ. `Wanted::Pairs`: the
  // first are not asked for.
  enum class Wanted : std::uint8_t { All, Pairs };
  void backward(at::Tensor& dx, const at::Tensor& dy, Wanted) const;
  // The pairs' gradients, with dx as backward() left it and x as forward() or inner() did.
  PairGradients pairs_backward(const at::Tensor& dx, const at::Tensor& dy, const at::Tensor& x, const Pairs&) const;

 private:
  void hold(std::int64_t columns, at::ScalarType);
  at::Tensor matrix() const { return joined_.narrow(1, 0, in_ + columns_); }
  at::Tensor a() const { return a_.narrow(0, 0, columns_); }
  std::vector<Place*> places_;
  std::vector<std::int64_t> rows_;
  std::int64_t in_ = 0, out_ = 0, columns_ = 0;
  struct Written {
    std::int64_t column, rank, row;
    bool operator==(const Written&) const = default;
  };
  std::vector<Written> written_;  // where the pairs of the last take() stand in joined_
  std::uint64_t takes_ = 0;
  at::Tensor joined_;  // [out, in + most columns so far]
  at::Tensor a_;       // [most columns so far, in]
};

}  // namespace hansa::nn::fast
