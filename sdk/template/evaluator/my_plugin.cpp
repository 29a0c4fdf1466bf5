#include "my_plugin.hpp"

#include <stdexcept>

#include <ATen/core/grad_mode.h>
#include <hansa/plugin.hpp>

namespace example {

hansa::Metrics MyPlugin::evaluate(hansa::Model& model, hansa::DataSource& data) {
  const at::NoGradGuard no_grad;
  model.disable_dropout();
  data.rewind();
  double nats = 0, correct = 0;
  std::int64_t tokens = 0, bytes = 0, documents = 0;
  while (auto batch = data.next(params_.batch)) {
    if (host_.cancelled()) throw std::runtime_error("the evaluation was cancelled");
    nats += model.loss(*batch).item<double>();
    const auto likeliest = model.logits(*batch, nullptr).argmax(-1);
    correct += likeliest.eq(batch->labels).sum().item<double>();  // labels that are not counted are -100: never equal
    tokens += batch->counted;
    bytes += batch->bytes;
    documents += batch->documents;
  }
  return {{"nats", nats},
          {"tokens", static_cast<double>(tokens)},
          {"bytes", static_cast<double>(bytes)},
          {"documents", static_cast<double>(documents)},
          {"correct", correct}};
}

}  // namespace example

HANSA_PLUGIN(org_example_my_plugin, "0.1.0") {
  using namespace example;
  plugin.vendor("Example").license("Apache-2.0");
  plugin.add<MyPlugin, Params>("my_plugin", "Loss, and how often the likeliest token is right.")
      .doc("What it does, in paragraphs; papers by arXiv id.")
      .maturity(hansa::Maturity::Experimental)
      .traits(HANSA_TRAIT_STATELESS)
      .param(&Params::batch, "batch", "Rows of one forward pass.", hansa::at_least(1), "rows");
}
