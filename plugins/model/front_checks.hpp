// What must hold for every causal language model with tokens that an adapter puts before each row: a soft prompt, or a
// prefix of keys and values.
#pragma once
#include "model_checks.hpp"

namespace hansa::model_checks {

// `embedding_scale`: what the model multiplies embeddings of words with, and soft tokens not (Gemma).
void soft_tokens_are_as_words(const Subject&, double embedding_scale);
void fronts_agree_however_rows_are_computed(const Subject&);
void gradients_of_fronts_equal_finite_differences(const Subject&);
void fronts_take_room(const Subject&);

}  // namespace hansa::model_checks
