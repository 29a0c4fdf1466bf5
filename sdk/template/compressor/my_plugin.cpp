#include "my_plugin.hpp"

#include <stdexcept>

#include <hansa/as_is.hpp>
#include <hansa/plugin.hpp>

namespace example {

using namespace hansa;

SizePlan MyPlugin::plan(const TensorSpec& in) const {
  if (as_is::whole(in.dtype)) return as_is::plan(in);  // an earlier stage's positions or codes
  if (in.dtype != DType::f32) throw std::invalid_argument("my_plugin takes f32 tensors and whole numbers");
  const auto bytes = 2 * static_cast<std::uint64_t>(in.elements());
  return {{{"half", DType::f16, in.shape}}, bytes, bytes};
}

Encoded MyPlugin::encode(const at::Tensor& in, Seeds) const {
  if (as_is::whole(in.scalar_type())) return as_is::encode(in);
  if (in.scalar_type() != at::kFloat) throw std::invalid_argument("my_plugin takes f32 tensors and whole numbers");
  return {{in.clamp(-params_.limit, params_.limit).to(at::kHalf).contiguous()}, ""};
}

at::Tensor MyPlugin::decode(const Encoded& encoded, const TensorSpec& out, std::uint64_t) const {
  if (as_is::whole(out.dtype)) return as_is::decode(encoded, out);
  if (out.dtype != DType::f32 || encoded.parts.size() != 1 || !encoded.header.empty() ||
      encoded.parts[0].scalar_type() != at::kHalf || encoded.parts[0].numel() != out.elements())
    throw std::invalid_argument("my_plugin: one f16 part as large as the tensor expected, and no header");
  return encoded.parts[0].to(at::kFloat).contiguous().view(out.shape);
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "Half precision: half the bytes.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(Maturity::Experimental)
      .traits(HANSA_TRAIT_FIXED_SUPPORT | HANSA_TRAIT_STATELESS | HANSA_TRAIT_REENTRANT)
      .param(&Params::limit, "limit", "Larger magnitudes are cut to this.", more_than(0), at_most(65504));
}
