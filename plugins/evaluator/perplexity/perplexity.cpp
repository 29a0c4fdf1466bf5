#include "perplexity.hpp"

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::perplexity {

Metrics Perplexity::evaluate(Model& model, DataSource& data) {
  at::NoGradGuard no_grad;
  model.disable_dropout();
  data.rewind();
  double nats = 0;
  std::int64_t tokens = 0, bytes = 0, documents = 0;
  while (auto batch = data.next(params_.batch)) {
    if (host_.cancelled()) throw Error("evaluation was cancelled");
    const double loss = model.loss(*batch).item<double>();
    if (!std::isfinite(loss))
      throw Error(
          fmt::format("evaluation: the loss is {} after {} documents; the model holds values that are not finite", loss,
                      documents));
    nats += loss;
    tokens += batch->counted;
    bytes += batch->bytes;
    documents += batch->documents;
    host_.progress(static_cast<std::uint64_t>(documents), data.examples());
  }
  return {{"nats", nats},
          {"tokens", static_cast<double>(tokens)},
          {"bytes", static_cast<double>(bytes)},
          {"documents", static_cast<double>(documents)}};
}

}  // namespace hansa::perplexity

HANSA_PLUGIN(org_hansa_perplexity, "0.1.0") {
  using namespace hansa;
  using perplexity::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<perplexity::Perplexity, Params>("perplexity", "Loss over held-out text, as sums of nats, tokens and bytes.")
      .maturity(Maturity::Beta)
      .param(&Params::batch, "batch", "Rows of one forward pass.", at_least(1), "rows");
}
