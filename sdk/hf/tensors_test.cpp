#include "hf/tensors.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>

#include "test.hpp"

using namespace hansa;
using namespace hansa::hf;
using Catch::Matchers::Contains;

TEST_CASE("tensors keep their values through a file and are aligned to 64 bytes in any dtype") {
  const TemporaryDirectory directory;
  const auto values = at::arange(-6, 7, at::kFloat).div(4);  // exact in bf16
  save_tensors(directory.path() / "model.safetensors", {{"f", values},
                                                        {"h", values.to(at::kHalf)},
                                                        {"b", values.to(at::kBFloat16)},
                                                        {"i", values.to(at::kLong)},
                                                        {"u", at::zeros({3}, at::kByte)},
                                                        {"t", values.reshape({13, 1}).expand({13, 2}).t()}});
  const Checkpoint checkpoint(directory.path());
  for (const char* name : {"f", "h", "b"}) {
    for (const auto wanted : {DType::f32, DType::bf16, DType::f16}) {
      const auto loaded = load_tensor(checkpoint, name, wanted);
      CHECK(loaded.scalar_type() == scalar_type_of(wanted));
      CHECK(at::equal(loaded.to(at::kFloat), values));
      CHECK(reinterpret_cast<std::uintptr_t>(loaded.data_ptr()) % 64 == 0);
    }
  }
  CHECK(at::equal(load_tensor(checkpoint.at("t")), values.expand({2, 13})));
  CHECK(load_tensor(checkpoint.at("i")).scalar_type() == at::kLong);
  for (const char* name : {"i", "u"})
    CHECK_THROWS_WITH(load_tensor(checkpoint, name, DType::f32), Contains("whole numbers where weights are wanted"));
  CHECK_THROWS_WITH(load_tensor(checkpoint, "nothing", DType::f32), Contains("no tensor 'nothing'"));
}

TEST_CASE("a tensor of a type that does not travel is refused by name") {
  const TemporaryDirectory directory;
  CHECK_THROWS_WITH(save_tensors(directory.path() / "x.safetensors", {{"a", at::zeros({1}, at::kDouble)}}),
                    Contains("Double"));
  const StoredTensor stored{"a", "F64", std::nullopt, {0}, {}};
  CHECK_THROWS_WITH(load_tensor(stored, DType::f32), Contains("'a' is stored as F64, which is not supported"));
}
