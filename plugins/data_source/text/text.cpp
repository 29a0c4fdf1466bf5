#include "text.hpp"

#include <hansa/plugin.hpp>

namespace hansa::text {

Text::Text(Params params, Host& host)
    : SiloSource({.name = "text",
                  .length = params.length,
                  .usual_length = 128,
                  .mode = params.mode,
                  .on_bad = params.on_bad,
                  .cache = params.cache},
                 host),
      separator_(std::move(params.separator)) {}

}  // namespace hansa::text

HANSA_PLUGIN(org_hansa_text, "0.2.0") {
  using namespace hansa;
  using text::Params;
  plugin.vendor("Hansa").license("Apache-2.0");
  auto source = plugin.add<text::Text, Params>(
      "text", "Plain text files: documents between separator lines, as packed or padded rows.");
  source.maturity(Maturity::Beta)
      .doc(
          "A silo is a .txt file or a directory of them. A document longer than a row is cut into windows; the last "
          "token of one is the first input of the next.")
      .param(&Params::mode, "mode", "Several documents in a row, which do not see each other, or one.",
             choices({"pack", "pad"}))
      .param(&Params::separator, "separator", "A line equal to this ends a document; empty: a file is one document.");
  data::declare_rows(source, &Params::length, &Params::on_bad, &Params::cache, "128");
}
