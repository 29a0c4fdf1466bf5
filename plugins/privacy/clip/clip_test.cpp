#include "clip.hpp"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include "test.hpp"

using namespace hansa;

namespace {

struct NoRng final : SecureRng {
  at::Tensor gaussian(at::IntArrayRef, double) override { throw std::logic_error("clip must not draw noise"); }
};

}  // namespace

TEST_CASE("clip bounds the norm, adds nothing and spends nothing") {
  clip::Clip privacy(clip::Params{2.5});
  const RoundPlan plan;
  NoRng rng;
  CHECK(privacy.clip_bound(plan) == 2.5);
  CHECK_FALSE(privacy.event(plan).has_value());
  auto tensor = at::full({4}, 1.5);
  const auto before = tensor.clone();
  privacy.local("adapter", 0, tensor, rng);
  privacy.begin_release(plan, {2.5, 1, 4});
  privacy.central("adapter", 0, tensor, rng);
  privacy.end_release();
  CHECK(at::equal(tensor, before));
}
