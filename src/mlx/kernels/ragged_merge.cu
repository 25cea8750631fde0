// Merges the parts of `ragged_attention` with SPLIT: a block for each row and head.
//
// Inputs
//   parts  float32 [B, N_HEADS, splits, DV], stats float32 [B, N_HEADS, splits, 2]
//   sinks  float32 [N_HEADS], or anything without SINKS
// Output
//   attended O [B, N_HEADS, 1, DV]
// Constants: O, N_HEADS, DV, THREADS, SINKS

const float nothing = -__int_as_float(0x7f800000);
const int splits = stats_shape[2];
const long head = blockIdx.x;
const float* stat = stats + head * splits * 2;
float most = SINKS ? sinks[head % N_HEADS] : nothing;
for (int s = 0; s < splits; s++) {
  most = fmaxf(most, stat[2 * s]);
}
float sum = SINKS ? expf(sinks[head % N_HEADS] - most) : 0.0f;
for (int s = 0; s < splits; s++) {
  sum += stat[2 * s] == nothing ? 0.0f : stat[2 * s + 1] * expf(stat[2 * s] - most);
}
for (int d = threadIdx.x; d < DV; d += THREADS) {
  float mixed = 0.0f;
  for (int s = 0; s < splits; s++) {
    const float part = parts[(head * splits + s) * DV + d];
    mixed += stat[2 * s] == nothing ? 0.0f : part * expf(stat[2 * s] - most);
  }
  attended[head * DV + d] = static_cast<O>(sum > 0.0f ? mixed / sum : 0.0f);
}
