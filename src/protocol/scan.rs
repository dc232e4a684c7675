//! One bounded pass over a client message: well-formedness, nesting, duplicate keys, envelope.
