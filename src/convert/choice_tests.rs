//! Tests of the choices.
