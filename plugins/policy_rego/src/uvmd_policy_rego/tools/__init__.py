"""What ``uvmctl policy`` does with policies, as a library; none of it runs in the daemon.

``generate`` writes a policy, ``check`` looks for mistakes in one, ``explain`` says it in plain
words, ``compare`` says what two of them differ in. All read a policy by the engine that
enforces it (``reading``, ``description``), so they cannot take it for something else.
"""
