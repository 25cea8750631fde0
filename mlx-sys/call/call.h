// Operations of our own inside MLX's graph, on the CPU. In mlx-c's style: a status, and results through
// out-handles; no exception crosses.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "mlx/c/array.h"
#include "mlx/c/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

// The memory of an evaluated array: of an input to read, of an output to write. Strides count elements.
typedef struct mlx_call_view_ {
  void* data;
  const int32_t* shape;
  const int64_t* strides;
  size_t ndim;
  size_t size;
  mlx_dtype dtype;
} mlx_call_view;

// Constants of a call, kept with it.
typedef struct mlx_call_params_ {
  uint64_t words[8];
} mlx_call_params;

// Evaluated arrays without gaps that calls read, kept for as long as a call or their owner does. A graph does
// not know of them: each of its inputs costs time whenever it is built, scheduled and freed.
typedef struct mlx_call_constants_ {
  void* ctx;
} mlx_call_constants;

// Makes `arrays` constants: evaluates them, and fails if one has gaps.
int mlx_call_constants_new(mlx_call_constants* result, const mlx_array* arrays, size_t n);

void mlx_call_constants_free(mlx_call_constants constants);

// What a call writes. `takes` is the input that it is a changed state of, or -1: its memory holds that
// input's elements when the function is called, and is the input's own where nothing else needs that.
typedef struct mlx_call_output_ {
  const int32_t* shape;
  size_t ndim;
  mlx_dtype dtype;
  int32_t takes;
} mlx_call_output;

// Computes on the stream's own thread. Other than 0 means that it failed, and why is in `message`,
// NUL-terminated.
typedef int (*mlx_call_function)(
    const mlx_call_params* params,
    const mlx_call_view* inputs,
    size_t n_inputs,
    mlx_call_view* outputs,
    size_t n_outputs,
    char* message,
    size_t capacity);

// `n_outputs` new arrays that `function` writes once they are evaluated. `name` must live for ever.
// Inputs reach the function row by row without gaps, but for those whose bit is set in `strided`; after them
// come `constants`, if there are (`ctx` is not null).
int mlx_call(
    mlx_array* results,
    const char* name,
    mlx_call_function function,
    mlx_call_params params,
    const mlx_array* inputs,
    size_t n_inputs,
    uint32_t strided,
    mlx_call_constants constants,
    const mlx_call_output* outputs,
    size_t n_outputs,
    const mlx_stream stream);

#ifdef __cplusplus
}
#endif
