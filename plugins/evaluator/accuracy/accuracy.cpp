#include "accuracy.hpp"

#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>
#include <hansa/plugin.hpp>

#include "base/error.hpp"

namespace hansa::accuracy {

Metrics Accuracy::evaluate(Model& model, DataSource& data) {
  const at::NoGradGuard no_grad;
  model.disable_dropout();
  data.rewind();
  double nats = 0;
  std::int64_t correct = 0, counted = 0, documents = 0;
  while (const auto batch = data.next(params_.batch)) {
    if (host_.cancelled()) throw Error("evaluation was cancelled");
    if (batch->task == Task::Preference)
      throw Error("accuracy looks at classes or tokens, and the data source gives pairs of answers");
    documents += batch->documents;
    host_.progress(static_cast<std::uint64_t>(documents), data.examples());
    if (batch->counted == 0) continue;
    const auto logits = model.counted_logits(*batch);
    const auto flat = batch->labels.reshape({-1}).to(logits.device());
    const auto labels = flat.index_select(0, flat.ge(0).nonzero().squeeze(1));
    const auto of_labels = logits.gather(1, labels.unsqueeze(1)).squeeze(1);
    const double loss = (at::logsumexp(logits, 1) - of_labels).sum(at::kDouble).item<double>();
    if (!std::isfinite(loss))
      throw Error(
          fmt::format("evaluation: the loss is {} after {} documents; the model holds values that are not finite", loss,
                      documents));
    nats += loss;
    correct += logits.argmax(1).eq(labels).sum().item<std::int64_t>();
    counted += batch->counted;
  }
  return {{"correct", static_cast<double>(correct)},
          {"nats", nats},
          {"tokens", static_cast<double>(counted)},
          {"documents", static_cast<double>(documents)}};
}

}  // namespace hansa::accuracy

HANSA_PLUGIN(org_hansa_accuracy, "0.1.0") {
  using namespace hansa;
  using accuracy::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  plugin
      .add<accuracy::Accuracy, Params>("accuracy",
                                       "Share of held-out texts, or tokens, whose likeliest class is the right one.")
      .doc(
          "Sums that add up over silos: correct, nats, tokens (counted labels: one a text for a classifier), "
          "documents. The "
          "host forms correct_per_label and nats_per_label.")
      .param(&Params::batch, "batch", "Rows of one forward pass.", at_least(1), "rows");
}
