// A primitive of MLX whose evaluation calls a C function. See call.h.

#include "call.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/c/error.h"
#include "mlx/c/private/mlx.h"
#include "mlx/primitives.h"
#include "mlx/scheduler.h"

namespace pensieve {

namespace mx = mlx::core;

// MLX's CUDA backend counts the graphs that it meets for the first time and, from 800 on, refuses every further
// one for as long as the process lives: it takes them for a cache that is too small. A server lives long and its
// batches have many forms; what the cache holds is bounded without that. MLX reads this when a device is first
// used, and an environment can only be changed before there are threads. What the user has set stays.
__attribute__((constructor)) void allow_new_graphs() {
  setenv("MLX_ENABLE_CACHE_THRASHING_CHECK", "0", 0);
}

// An array's memory, with its shape and strides owned: the array itself must not outlive its graph.
struct Memory {
  void* data;
  mx::Shape shape;
  mx::Strides strides;
  size_t size;
  mx::Dtype dtype;

  explicit Memory(const mx::array& a)
      : data(const_cast<mx::array&>(a).data<void>()),
        shape(a.shape()),
        strides(a.strides()),
        size(a.size()),
        dtype(a.dtype()) {}

  mlx_call_view view() const {
    auto type = mlx_dtype_to_c(dtype);
    return {data, shape.data(), strides.data(), shape.size(), size, type};
  }
};

// Arrays that calls read, and what keeps their memory. It may be let go of on any thread, as memory may.
struct Constants {
  std::vector<Memory> memory;
  std::vector<std::shared_ptr<mx::array::Data>> kept;

  explicit Constants(std::vector<mx::array> arrays) {
    for (auto& a : arrays) {
      a.eval();
      if (!a.flags().row_contiguous) {
        throw std::invalid_argument("A constant has gaps between its rows.");
      }
      memory.emplace_back(a);
      kept.push_back(a.data_shared_ptr());
    }
  }
};

// Copies the elements of `in` from axis `axis` on to `out` in row-major order; returns `out`'s end.
char* gather(const Memory& in, size_t axis, const char* from, size_t width, char* out) {
  if (axis == in.shape.size()) {
    std::memcpy(out, from, width);
    return out + width;
  }
  auto step = in.strides[axis] * static_cast<int64_t>(width);
  if (axis + 1 == in.shape.size() && step == static_cast<int64_t>(width)) {
    auto bytes = width * static_cast<size_t>(in.shape[axis]);
    std::memcpy(out, from, bytes);
    return out + bytes;
  }
  for (int i = 0; i < in.shape[axis]; ++i) {
    out = gather(in, axis + 1, from, width, out);
    from += step;
  }
  return out;
}

// Whether `in`'s memory is free to be changed, once the tasks that read it have ended: those of the step
// before may still be waiting. Bounded, since other threads' tasks count too.
bool is_free(const mx::array& in) {
  for (int turn = 0; turn < 64 && !in.is_donatable(); ++turn) {
    if (mx::scheduler::n_active_tasks() <= 1) {
      break;
    }
    mx::scheduler::wait_for_one();
  }
  return in.is_donatable();
}

class Call : public mx::Primitive {
 public:
  Call(
      mx::Stream stream,
      const char* name,
      mlx_call_function function,
      const mlx_call_params& params,
      uint32_t strided,
      std::shared_ptr<const Constants> constants,
      std::vector<mx::Shape> shapes,
      std::vector<int32_t> takes)
      : mx::Primitive(stream),
        name_(name),
        function_(function),
        params_(params),
        strided_(strided),
        constants_(std::move(constants)),
        shapes_(std::move(shapes)),
        takes_(std::move(takes)) {}

  void eval_cpu(
      const std::vector<mx::array>& inputs,
      std::vector<mx::array>& outputs) override {
    auto& encoder = mx::cpu::get_command_encoder(stream());
    auto job = std::make_shared<Job>();
    job->function = function_;
    job->params = params_;
    job->constants = constants_;
    job->memory.reserve(inputs.size() + outputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const auto& in = inputs[i];
      if (in.flags().row_contiguous || (strided_ >> i & 1)) {
        encoder.set_input_array(in);
        job->memory.emplace_back(in);
        continue;
      }
      mx::array dense(in.shape(), in.dtype(), nullptr, {});
      dense.set_data(mx::allocator::malloc(dense.nbytes()));
      encoder.add_temporary(dense);
      encoder.dispatch([from = Memory(in), to = dense.data<char>()]() {
        auto data = static_cast<const char*>(from.data);
        gather(from, 0, data, mx::size_of(from.dtype), to);
      });
      job->memory.emplace_back(dense);
    }
    job->n_inputs = inputs.size();
    // Each output has handles of all inputs; those of the one that is evaluated are enough.
    for (auto& out : outputs) {
      if (&out.inputs() != &inputs) {
        out.inputs().clear();
      }
    }
    auto counts = false;
    for (size_t i = 0; i < outputs.size(); ++i) {
      auto& out = outputs[i];
      if (takes_[i] >= 0) {
        take(inputs[takes_[i]], out, encoder);
        // Only the output shows it.
        job->memory[takes_[i]].size = 0;
        counts = true;
      } else {
        out.set_data(mx::allocator::malloc(out.nbytes()));
      }
      encoder.set_output_array(out);
      job->memory.emplace_back(out);
    }
    if (!counts) {
      encoder.dispatch([job = std::move(job)]() { job->run(); });
      return;
    }
    // MLX counts every tenth task, and `is_free` waits for what is counted.
    mx::scheduler::notify_new_task(stream());
    encoder.dispatch([job = std::move(job)]() { job->run(); });
    mx::scheduler::enqueue(
        stream(), [s = stream()]() { mx::scheduler::notify_task_completion(s); });
  }

  void eval_gpu(const std::vector<mx::array>&, std::vector<mx::array>&) override {
    throw std::runtime_error(std::string(name_) + " has no GPU implementation.");
  }

  const char* name() const override {
    return name_;
  }

  bool is_equivalent(const mx::Primitive& other) const override {
    auto call = dynamic_cast<const Call*>(&other);
    return call && function_ == call->function_ && constants_ == call->constants_ &&
        shapes_ == call->shapes_ && takes_ == call->takes_ &&
        std::memcmp(&params_, &call->params_, sizeof(params_)) == 0;
  }

  std::vector<mx::Shape> output_shapes(const std::vector<mx::array>&) override {
    return shapes_;
  }

 private:
  static void take(
      const mx::array& in,
      mx::array& out,
      mx::cpu::CommandEncoder& encoder) {
    if (in.flags().row_contiguous && in.data_size() == in.size() && is_free(in)) {
      out.copy_shared_buffer(in);
      return;
    }
    out.set_data(mx::allocator::malloc(out.nbytes()));
    encoder.dispatch([from = Memory(in), to = out.data<char>()]() {
      auto data = static_cast<const char*>(from.data);
      gather(from, 0, data, mx::size_of(from.dtype), to);
    });
  }

  struct Job {
    mlx_call_function function;
    mlx_call_params params;
    std::shared_ptr<const Constants> constants;
    size_t n_inputs;
    std::vector<Memory> memory;

    // MLX keeps what a task throws, and the wait for the result throws it again.
    void run() const {
      constexpr size_t few = 48;
      mlx_call_view some[few];
      std::vector<mlx_call_view> many;
      auto views = some;
      auto n_constants = constants ? constants->memory.size() : 0;
      if (memory.size() + n_constants > few) {
        many.resize(memory.size() + n_constants);
        views = many.data();
      }
      auto next = views;
      for (size_t i = 0; i < n_inputs; ++i) {
        *next++ = memory[i].view();
      }
      for (size_t i = 0; i < n_constants; ++i) {
        *next++ = constants->memory[i].view();
      }
      auto outputs = next;
      for (size_t i = n_inputs; i < memory.size(); ++i) {
        *next++ = memory[i].view();
      }
      char message[256] = "";
      if (function(
              &params,
              views,
              outputs - views,
              outputs,
              next - outputs,
              message,
              sizeof(message))) {
        throw std::runtime_error(message);
      }
    }
  };

  const char* name_;
  mlx_call_function function_;
  mlx_call_params params_;
  uint32_t strided_;
  std::shared_ptr<const Constants> constants_;
  std::vector<mx::Shape> shapes_;
  std::vector<int32_t> takes_;
};

} // namespace pensieve

extern "C" int mlx_call_constants_new(
    mlx_call_constants* result,
    const mlx_array* arrays,
    size_t n) {
  try {
    std::vector<mlx::core::array> all;
    all.reserve(n);
    for (size_t i = 0; i < n; ++i) {
      all.push_back(mlx_array_get_(arrays[i]));
    }
    result->ctx = new std::shared_ptr<const pensieve::Constants>(
        std::make_shared<const pensieve::Constants>(std::move(all)));
  } catch (std::exception& e) {
    mlx_error(e.what());
    return 1;
  }
  return 0;
}

extern "C" void mlx_call_constants_free(mlx_call_constants constants) {
  delete static_cast<std::shared_ptr<const pensieve::Constants>*>(constants.ctx);
}

extern "C" int mlx_call(
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
    const mlx_stream stream) {
  try {
    std::vector<mlx::core::array> from;
    from.reserve(n_inputs);
    for (size_t i = 0; i < n_inputs; ++i) {
      from.push_back(mlx_array_get_(inputs[i]));
    }
    std::vector<mlx::core::Shape> shapes;
    std::vector<mlx::core::Dtype> dtypes;
    std::vector<int32_t> takes;
    for (size_t i = 0; i < n_outputs; ++i) {
      auto& out = outputs[i];
      shapes.emplace_back(out.shape, out.shape + out.ndim);
      dtypes.push_back(mlx_dtype_to_cpp(out.dtype));
      takes.push_back(out.takes);
      if (out.takes < 0) {
        continue;
      }
      auto at = static_cast<size_t>(out.takes);
      if (at >= n_inputs || from[at].shape() != shapes[i] || from[at].dtype() != dtypes[i]) {
        throw std::invalid_argument("An output is not of its input's shape and type.");
      }
    }
    std::shared_ptr<const pensieve::Constants> kept;
    if (constants.ctx) {
      kept = *static_cast<std::shared_ptr<const pensieve::Constants>*>(constants.ctx);
    }
    auto call = std::make_shared<pensieve::Call>(
        mlx_stream_get_(stream),
        name,
        function,
        params,
        strided,
        std::move(kept),
        shapes,
        std::move(takes));
    if (n_outputs == 1) {
      mlx_array_set_(
          results[0],
          mlx::core::array(
              std::move(shapes[0]), dtypes[0], std::move(call), std::move(from)));
      return 0;
    }
    auto made = mlx::core::array::make_arrays(std::move(shapes), dtypes, call, from);
    for (size_t i = 0; i < n_outputs; ++i) {
      mlx_array_set_(results[i], std::move(made[i]));
    }
  } catch (std::exception& e) {
    mlx_error(e.what());
    return 1;
  }
  return 0;
}
