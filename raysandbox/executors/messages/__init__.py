"""Message builders: one file per `build_messages_func`."""
