//! Reading the data log, on threads of its own.
