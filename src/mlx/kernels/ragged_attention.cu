// One query token for each row of a batch, against the row's own stretch of a shared store of keys
// and values. The row's newest key and value are stored on the way.
//
// A block serves HEADS query heads of one row that share a key head, over one of `splits` parts of
// the row's entries. LANES threads take an entry together, each VEC features at a time; softmax runs
// online (Milakov and Gimelshein, 2018), and what groups of threads found is merged at the end.
//
// Inputs
//   queries   T [B, N_HEADS, 1, DK]
//   new_keys  T [B, N_KV, 1, DK],  new_values T [B, N_KV, 1, DV]; these three may be views with any
//             strides
//   keys      T [places, N_KV, DK], values T [places, N_KV, DV]; with WITHIN values are the first DV
//             features of keys
//   spans     int32 [B, 2]: place of the first entry that the query sees, and how many there are, the
//             newest included
//   sinks     float32 [N_HEADS], or anything without SINKS
// Outputs
//   attended  O [B, N_HEADS, 1, DV], or with SPLIT float32 [B, N_HEADS, splits, DV] before division
//   stats     float32 [B, N_HEADS, splits, 2]: greatest score and sum; unused without SPLIT
// Constants: T, O, N_HEADS, N_KV, HEADS, DK, DV, THREADS, SCALE and CAP (floats by their bits), WITHIN,
// SINKS, SPLIT

constexpr int VEC = 16 / sizeof(T);
constexpr int KEY_PACKS = DK / VEC;
constexpr int VALUE_PACKS = DV / VEC;
constexpr int WIDEST = KEY_PACKS > VALUE_PACKS ? KEY_PACKS : VALUE_PACKS;
constexpr int LANES = WIDEST > 16 ? 32 : WIDEST > 8 ? 16 : WIDEST > 4 ? 8 : 4;
constexpr int GROUPS = THREADS / LANES;
constexpr int EK = (KEY_PACKS + LANES - 1) / LANES;
constexpr int EV = (VALUE_PACKS + LANES - 1) / LANES;
constexpr int AHEAD = HEADS * (EK + EV) <= 2 ? 8 : HEADS * (EK + EV) <= 8 ? 4 : 2;
constexpr int PARTS = N_HEADS / N_KV / HEADS;
const float scale = __int_as_float(SCALE);
const float cap = __int_as_float(CAP);
const float nothing = -__int_as_float(0x7f800000);

struct alignas(16) Pack {
  T v[VEC];
};

// Features of a view, VEC of them from `c * VEC` on.
auto take = [](const T* from, long step, int c) {
  Pack pack;
  if (step == 1 && reinterpret_cast<size_t>(from) % sizeof(Pack) == 0) {
    return reinterpret_cast<const Pack*>(from)[c];
  }
#pragma unroll
  for (int i = 0; i < VEC; i++) {
    pack.v[i] = from[(c * VEC + i) * step];
  }
  return pack;
};

const int split = blockIdx.x;
const int splits = gridDim.x;
const int kv = blockIdx.y / PARTS;
const int row = blockIdx.z;
const int head = kv * (N_HEADS / N_KV) + (blockIdx.y % PARTS) * HEADS;
const int lane = threadIdx.x % LANES;
const int group = threadIdx.x / LANES;

const long first = spans[2 * row];
const int count = spans[2 * row + 1];
const int share = (count + splits - 1) / splits;
const int begin = min(count, split * share);
const int end = min(count, begin + share);

const T* new_key = new_keys + row * new_keys_strides[0] + kv * new_keys_strides[1];
const T* new_value = new_values + row * new_values_strides[0] + kv * new_values_strides[1];

float q[HEADS][EK][VEC];
float acc[HEADS][EV][VEC];
float best[HEADS];
float total[HEADS];
#pragma unroll
for (int h = 0; h < HEADS; h++) {
  best[h] = nothing;
  total[h] = 0.0f;
  const T* query = queries + row * queries_strides[0] + (head + h) * queries_strides[1];
#pragma unroll
  for (int e = 0; e < EK; e++) {
    const int c = lane + e * LANES;
    Pack pack = {};
    if (c < KEY_PACKS) {
      pack = take(query, queries_strides[3], c);
    }
#pragma unroll
    for (int i = 0; i < VEC; i++) {
      q[h][e][i] = c < KEY_PACKS ? float(pack.v[i]) * scale : 0.0f;
    }
  }
#pragma unroll
  for (int e = 0; e < EV; e++) {
#pragma unroll
    for (int i = 0; i < VEC; i++) {
      acc[h][e][i] = 0.0f;
    }
  }
}

// All threads of a block run through the same rounds, so that whole warps meet at each shuffle.
for (int base = begin; base < end; base += GROUPS * AHEAD) {
  Pack key[AHEAD][EK];
  Pack value[AHEAD][EV];
#pragma unroll
  for (int a = 0; a < AHEAD; a++) {
    const int s = base + a * GROUPS + group;
    const bool newest = s == count - 1;
    const long place = (first + s) * N_KV + kv;
#pragma unroll
    for (int e = 0; e < EK; e++) {
      const int c = lane + e * LANES;
      key[a][e] = {};
      if (s < end && c < KEY_PACKS) {
        key[a][e] = newest ? take(new_key, new_keys_strides[3], c)
                           : reinterpret_cast<const Pack*>(keys + place * DK)[c];
      }
    }
#pragma unroll
    for (int e = 0; e < EV; e++) {
      const int c = lane + e * LANES;
      value[a][e] = {};
      if (WITHIN) {
        value[a][e] = key[a][e];
      } else if (s < end && c < VALUE_PACKS) {
        value[a][e] = newest ? take(new_value, new_values_strides[3], c)
                             : reinterpret_cast<const Pack*>(values + place * DV)[c];
      }
    }
    // Blocks that share this key store the same bytes.
    if (newest && s < end) {
#pragma unroll
      for (int e = 0; e < EK; e++) {
        const int c = lane + e * LANES;
        if (c < KEY_PACKS) {
          const_cast<Pack*>(reinterpret_cast<const Pack*>(keys + place * DK))[c] = key[a][e];
        }
      }
      if (!WITHIN) {
#pragma unroll
        for (int e = 0; e < EV; e++) {
          const int c = lane + e * LANES;
          if (c < VALUE_PACKS) {
            const_cast<Pack*>(reinterpret_cast<const Pack*>(values + place * DV))[c] = value[a][e];
          }
        }
      }
    }
  }
#pragma unroll
  for (int h = 0; h < HEADS; h++) {
    float score[AHEAD];
    float most = best[h];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      float dot = 0.0f;
#pragma unroll
      for (int e = 0; e < EK; e++) {
#pragma unroll
        for (int i = 0; i < VEC; i++) {
          dot += q[h][e][i] * float(key[a][e].v[i]);
        }
      }
#pragma unroll
      for (int offset = LANES / 2; offset > 0; offset /= 2) {
        dot += __shfl_xor_sync(0xffffffffu, dot, offset);
      }
      if (CAP != 0) {
        dot = cap * tanhf(dot / cap);
      }
      score[a] = base + a * GROUPS + group < end ? dot : nothing;
      most = fmaxf(most, score[a]);
    }
    if (most == nothing) {
      continue; // This group of threads has had no entry yet.
    }
    const float kept = expf(best[h] - most);
    best[h] = most;
    total[h] *= kept;
    float weight[AHEAD];
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      weight[a] = expf(score[a] - most);
      total[h] += weight[a];
    }
#pragma unroll
    for (int e = 0; e < EV; e++) {
#pragma unroll
      for (int i = 0; i < VEC; i++) {
        float sum = acc[h][e][i] * kept;
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
          sum += weight[a] * float(value[a][e].v[i]);
        }
        acc[h][e][i] = sum;
      }
    }
  }
}

// Merge what the groups of a warp found, then what the warps found.
constexpr int WARPS = THREADS / 32;
__shared__ float found[HEADS][WARPS][DV];
__shared__ float found_best[HEADS][WARPS];
__shared__ float found_total[HEADS][WARPS];
const int warp = threadIdx.x / 32;
#pragma unroll
for (int h = 0; h < HEADS; h++) {
  float most = best[h];
#pragma unroll
  for (int offset = LANES; offset < 32; offset *= 2) {
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, offset));
  }
  const float share = best[h] == nothing ? 0.0f : expf(best[h] - most);
  float sum = total[h] * share;
#pragma unroll
  for (int offset = LANES; offset < 32; offset *= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  }
#pragma unroll
  for (int e = 0; e < EV; e++) {
    const int c = lane + e * LANES;
#pragma unroll
    for (int i = 0; i < VEC; i++) {
      float mixed = acc[h][e][i] * share;
#pragma unroll
      for (int offset = LANES; offset < 32; offset *= 2) {
        mixed += __shfl_xor_sync(0xffffffffu, mixed, offset);
      }
      if (threadIdx.x % 32 < LANES && c < VALUE_PACKS) {
        found[h][warp][c * VEC + i] = mixed;
      }
    }
  }
  if (threadIdx.x % 32 == 0) {
    found_best[h][warp] = most;
    found_total[h][warp] = sum;
  }
}
__syncthreads();
for (int i = threadIdx.x; i < HEADS * DV; i += THREADS) {
  const int h = i / DV;
  const int d = i % DV;
  float most = SINKS && !SPLIT ? sinks[head + h] : nothing;
#pragma unroll
  for (int w = 0; w < WARPS; w++) {
    most = fmaxf(most, found_best[h][w]);
  }
  float sum = SINKS && !SPLIT ? expf(sinks[head + h] - most) : 0.0f;
  float mixed = 0.0f;
#pragma unroll
  for (int w = 0; w < WARPS; w++) {
    const float share = found_best[h][w] == nothing ? 0.0f : expf(found_best[h][w] - most);
    sum += found_total[h][w] * share;
    mixed += found[h][w][d] * share;
  }
  const long out = (long(row) * N_HEADS + head + h) * splits + split;
  attended[out * DV + d] = static_cast<O>(SPLIT ? mixed : sum > 0.0f ? mixed / sum : 0.0f);
  if (SPLIT && d == 0) {
    stats[2 * out] = most;
    stats[2 * out + 1] = sum;
  }
}
