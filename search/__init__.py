"""Language-model tree search: actions, models, prompts, MCTS, peer verification."""
