// Element-wise work between matrix products, each one pass over memory: built once for each set of instructions, chosen at
// run time. A job says what is done to all rows; a call does some of them, so that threads can share a job. Rows are
// independent; sums over rows go into the caller's own buffers. Pure functions; any thread.
// No file that is compiled for newer instructions may define anything that the linker could share with the rest.
#pragma once
#include <cstdint>

namespace hansa::nn::fast {

using Half = std::uint16_t;  // the bits of a bf16

template <class T>  // float or Half; a stride counts elements from row to row
struct NormJob {
  const T *x = nullptr, *add = nullptr,
          *add_bias = nullptr;                 // normalised is x + add + add_bias; the last two may be null
  T* sum = nullptr;                            // x + add + add_bias, or null
  const T *weight = nullptr, *bias = nullptr;  // null: 1, 0
  T* out = nullptr;
  std::int64_t add_stride = 0, out_stride = 0, width = 0;  // x and sum are dense
  float *mean = nullptr, *scale = nullptr;  // one a row; mean null: the root of the mean square is the norm
  double epsilon = 0;
};

template <class T>
struct NormBackJob {
  const T *g = nullptr, *x = nullptr, *weight = nullptr;  // g: gradient of the norm's output
  const T* through = nullptr;                             // added to the result, or null
  T* dx = nullptr;
  std::int64_t g_stride = 0, width = 0;
  const float *mean = nullptr, *scale = nullptr;
};
struct NormBackSums {
  float* scratch = nullptr;                      // width
  float *d_weight = nullptr, *d_bias = nullptr;  // added to; null where not wanted
};

// Rows [batch · length] of heads beside each other <-> [batch, heads, length, dim] in blocks of queries (see layout below).
// Rotated by cos and sin where they are given: y[i] = x[i] cos[i] + x[(i + dim/2) % dim] sin[i]; when gathered, its transpose.
template <class T>
struct HeadsJob {
  T* rows = nullptr;
  T* heads = nullptr;
  const T* bias = nullptr;  // [heads · dim] with the stride of heads, added when scattered to heads; may be null
  std::int64_t row_stride = 0, head_stride = 0;
  const T *cos = nullptr, *sin = nullptr;  // [batch or 1, length, turned]
  std::int64_t table_batch_stride = 0, turned = 0;
  // Heads h of a group of `group` stand together: element (batch, h / group, t / block, h % group, t % block, i).
  std::int64_t count = 0, group = 1, length = 0, block = 0, dim = 0;
};

// A tile of scores: rows (head of the group, query), columns keys first_key …; keys [low, high) of a query are visible.
template <class T>
struct SoftmaxJob {
  T* scores = nullptr;  // products of queries and keys, not scaled; becomes the probabilities
  T* d = nullptr;       // backward: gradient of the probabilities; becomes that of the products
  float* log_sum = nullptr;
  const std::int32_t *low = nullptr, *high = nullptr;  // by query of the tile
  std::int64_t matrices = 1, rows = 0, queries = 1;    // rows of a matrix; query = row % queries
  std::int64_t matrix_stride = 0, row_stride = 0, log_sum_stride = 0, d_matrix_stride = 0, d_row_stride = 0;
  std::int64_t limits_every = 1;  // matrices that share limits; the next such group's are limits_stride further
  std::int64_t limits_stride = 0;
  std::int64_t keys = 0;  // columns that are written; hidden ones become 0
  double scale = 1;
};

// act = activation(gate + gate_bias) * (up + up_bias); without a gate activation(up + up_bias).
enum class Curve : std::uint8_t { Silu, GeluTanh, Relu };
template <class T>
struct GateJob {
  const T *gate = nullptr, *up = nullptr, *gate_bias = nullptr, *up_bias = nullptr;
  const T* d = nullptr;  // backward: gradient of act
  T* act = nullptr;
  T *d_gate = nullptr, *d_up = nullptr;  // may be gate and up themselves
  std::int64_t in_stride = 0, act_stride = 0, d_stride = 0, width = 0;
  Curve curve = Curve::Silu;
};

template <class T>
struct CrossEntropyJob {
  T* logits = nullptr;  // becomes softmax - onehot
  const std::int64_t* labels = nullptr;
  double* nats = nullptr;  // one a row
  std::int64_t width = 0;
};

template <class T>
struct AddJob {  // out = x + y + bias, dense but for y
  const T *x = nullptr, *y = nullptr, *bias = nullptr;
  T* out = nullptr;
  std::int64_t y_stride = 0, width = 0;
};

template <class T>
struct SumJob {  // to[column] += from, over rows
  const T* from = nullptr;
  std::int64_t stride = 0, width = 0;
};

template <class T>
struct CastJob {  // to = scale * from, in the type T; rows of `width`
  const float* from = nullptr;
  T* to = nullptr;
  std::int64_t from_stride = 0, to_stride = 0, width = 0;
  float scale = 1;
};

// y[row] = sum of weight[row] x, for rows of a matrix: products with few vectors are bound by reading the matrix.
template <class T>
struct VectorProductJob {
  const T* weight = nullptr;
  const float* x = nullptr;  // [vectors, width]
  float* y = nullptr;        // [vectors, rows]
  std::int64_t weight_stride = 0, width = 0, vectors = 1, y_stride = 0;
};

// sum[column][i] = factor * Σ over rows of by[row][column] x[row][i], for few columns: such a product is thinner than a product
// of matrices is good at. A call does whole columns i [first, last) of all rows, always in the same order.
template <class T>
struct ThinProductJob {
  const float* by = nullptr;  // [rows, columns], dense; of low_rank_product as thin_factor of the same build wrote it
  const T* x = nullptr;
  float* sum = nullptr;  // [columns, width]
  std::int64_t x_stride = 0, sum_stride = 0, rows = 0, columns = 0;
  float factor = 1;
};

template <class T>
struct Passes {
  void (*norm)(const NormJob<T>&, std::int64_t first, std::int64_t last);
  void (*norm_back)(const NormBackJob<T>&, const NormBackSums&, std::int64_t first, std::int64_t last);
  void (*to_heads)(const HeadsJob<T>&, std::int64_t first, std::int64_t last);
  void (*from_heads)(const HeadsJob<T>&, std::int64_t first, std::int64_t last);
  void (*softmax)(const SoftmaxJob<T>&, std::int64_t first, std::int64_t last);  // rows of all matrices
  void (*softmax_back)(const SoftmaxJob<T>&, std::int64_t first, std::int64_t last);
  void (*gate)(const GateJob<T>&, std::int64_t first, std::int64_t last);
  void (*gate_back)(const GateJob<T>&, std::int64_t first, std::int64_t last);
  void (*cross_entropy)(const CrossEntropyJob<T>&, std::int64_t first, std::int64_t last);
  void (*add)(const AddJob<T>&, std::int64_t first, std::int64_t last);
  void (*sum_rows)(const SumJob<T>&, float* to, std::int64_t first, std::int64_t last);
  void (*cast)(const CastJob<T>&, std::int64_t first, std::int64_t last);
  void (*vector_product)(const VectorProductJob<T>&, std::int64_t first, std::int64_t last);
  void (*thin_product)(const ThinProductJob<T>&, std::int64_t first, std::int64_t last);
  // The same where `by` is of type T too, as x is: rows * columns numbers in a form of this build's own, for its product.
  void (*thin_factor)(const T* by, std::int64_t stride, std::int64_t rows, std::int64_t columns, float* to);
  void (*low_rank_product)(const ThinProductJob<T>&, std::int64_t first, std::int64_t last);
};

template <class T>
const Passes<T>& passes();  // for this machine
template <>
const Passes<float>& passes<float>();
template <>
const Passes<Half>& passes<Half>();

// The builds, and whether this machine can run them: the tests try all that it can.
enum class Instructions : std::uint8_t { Base, Avx2, Avx512 };
bool available(Instructions);
template <class T>
const Passes<T>& passes(Instructions);  // of an available one
template <>
const Passes<float>& passes<float>(Instructions);
template <>
const Passes<Half>& passes<Half>(Instructions);
extern const Passes<float> kBaseFloat, kAvx2Float, kAvx512Float;
extern const Passes<Half> kBaseHalf, kAvx2Half, kAvx512Half;

}  // namespace hansa::nn::fast
