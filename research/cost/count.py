"""How many parameters, how many multiply-adds: counted, not measured, and the same on every machine.

FLOPs are counted by a walk over the jaxpr, because the compiler's own analysis counts the body of a loop once. Layers are
seen in their plain formulation (`research.layers.formulation`): a number says what the mathematics costs, not how one
backend happens to compute it.

Counted are matrix products and convolutions; additions, activations, normalization, pooling and reductions are not, as is
usual in published tables. Operations that cost more than these and that the walk cannot see into (a transform, a factorization,
a kernel of one's own) count as nothing, and `uncounted` names them. Taps that fall on padding count (ResNet-18 at 224 x 224 is
1.81 G multiply-adds, as published), the zeros of a dilated operand do not: the gradient of a strided convolution costs what the
convolution costs.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, jaxprs_in_params
from jax.interpreters import partial_eval

from research.layers import formulation

# Costly, and counted as nothing: their work stands in no shape, or in code that is not jax's.
_OPAQUE = frozenset(
    (
        *('custom_call', 'ffi_call', 'pallas_call', 'pure_callback', 'io_callback', 'tpu_custom_call', 'triton_kernel_call'),
        *('fft', 'cholesky', 'cholesky_update', 'lu', 'geqrf', 'qr', 'householder_product', 'eig', 'eigh', 'svd', 'schur'),
        *('hessenberg', 'tridiagonal', 'tridiagonal_solve', 'triangular_solve', 'ragged_dot', 'ragged_dot_general'),
        *('dot_product_attention_fwd_wrapper', 'dot_product_attention_bwd_wrapper', 'scaled_matmul_wrapper'),
    )
)


def parameters(variables: Any) -> int:
    """Number of parameters: of the collection `params` if there is one, else of the whole tree.

    Shapes are enough: the leaves may be `jax.ShapeDtypeStruct`.
    """
    tree = variables['params'] if isinstance(variables, Mapping) and 'params' in variables else variables
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def flops(fn: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of `fn(*args)`: two for each of its `multiply_adds`."""
    return count(fn, *args)[0]


def count(fn: Callable[..., Any], *args: Any) -> tuple[int, int]:
    """(`flops`, `multiply_adds`) of `fn(*args)`, from one trace of it."""
    products = multiply_adds(fn, *args)
    return 2 * products, products


def multiply_adds(fn: Callable[..., Any], *args: Any) -> int:
    """Multiply-adds of `fn(*args)`, in matrix products and convolutions. Nothing is computed.

    A scan counts its body times its length, a conditional its most expensive branch, a `shard_map` all of its shards. The
    body of a `while_loop` or of a `fori_loop` with a traced trip count is counted once. Unused results are
    not counted, because the compiler removes them.

    Args:
      fn: a function of arrays, jitted or not; with `jax.grad` inside it for a training step.
      args: its arguments; arrays may be `jax.ShapeDtypeStruct`.
    """
    return _of_jaxpr(_traced(fn, *args))


def uncounted(fn: Callable[..., Any], *args: Any) -> list[str]:
    """Names of the primitives in `fn(*args)` that cost something and count as nothing; of a while loop that holds counted
    operations 'while (one turn counted)'."""
    return sorted(_opaque(_traced(fn, *args)))


def _traced(fn: Callable[..., Any], *args: Any) -> Jaxpr:
    with formulation.plain():
        closed = jax.make_jaxpr(fn)(*args)
    return partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))[0]


def _opaque(jaxpr: Jaxpr) -> set[str]:
    names = set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        names |= {name} & _OPAQUE
        if name == 'while' and _of_equation(equation):
            names.add('while (one turn counted)')
        for inner in jaxprs_in_params(equation.params):
            names |= _opaque(getattr(inner, 'jaxpr', inner))
    return names


def _of_jaxpr(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: JaxprEqn) -> int:
    params = equation.params
    inner = [_of_jaxpr(getattr(jaxpr, 'jaxpr', jaxpr)) for jaxpr in jaxprs_in_params(params)]
    match equation.primitive.name:
        case 'dot_general':
            (contracted, _), _ = params['dimension_numbers']
            lhs, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            return math.prod(out) * math.prod(lhs[axis] for axis in contracted)
        case 'conv_general_dilated':
            return _of_convolution(equation)
        case 'scan':
            return params['length'] * sum(inner)
        case 'cond':
            return max(inner)
        case 'shard_map':
            return math.prod(params['mesh'].shape[axis] for axis in params['newly_manual_axes']) * sum(inner)
        case _:
            return sum(inner)


def _of_convolution(equation: JaxprEqn) -> int:
    """Output batch and features, times kernel channels (those of one group), times pairs (output, tap) in each dimension."""
    params = equation.params
    rhs = equation.invars[1].aval.shape
    out, layout = equation.outvars[0].aval.shape, params['dimension_numbers']
    pairs = 1
    for d, (low, _) in enumerate(params['padding']):
        position = np.arange(out[layout.out_spec[2 + d]])[:, None] * params['window_strides'][d] - low
        taps = np.arange(rhs[layout.rhs_spec[2 + d]])[None, :] * params['rhs_dilation'][d]
        pairs *= int(np.count_nonzero((position + taps) % params['lhs_dilation'][d] == 0))
    batch, features = (out[axis] for axis in layout.out_spec[:2])
    return batch * features * rhs[layout.rhs_spec[1]] * pairs
