// Stores a sequence's keys and values at consecutive places of a shared store.
//
// Inputs
//   new_keys T [1, N_KV, L, DK], new_values T [1, N_KV, L, DV]
//   keys     T [places, N_KV, DK], values T [places, N_KV, DV]; values are left alone with WITHIN
//   span     int32 [2]: the first place, and L
// Output
//   done     int32 [1], to wait for
// Constants: T, N_KV, DK, DV, WITHIN

const long place = span[0];
const long length = span[1];
const long step = long(gridDim.x) * blockDim.x;
const long start = long(blockIdx.x) * blockDim.x + threadIdx.x;
for (long i = start; i < length * N_KV * DK; i += step) {
  const long d = i % DK, kv = i / DK % N_KV, s = i / DK / N_KV;
  const_cast<T*>(keys)[place * N_KV * DK + i] = new_keys[(kv * length + s) * DK + d];
}
if (!WITHIN) {
  for (long i = start; i < length * N_KV * DV; i += step) {
    const long d = i % DV, kv = i / DV % N_KV, s = i / DV / N_KV;
    const_cast<T*>(values)[place * N_KV * DV + i] = new_values[(kv * length + s) * DV + d];
  }
}
if (start == 0) {
  done[0] = 1;
}
