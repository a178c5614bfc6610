"""Builders of tiny language models and classifiers with random weights, saved as transformers saves the real ones."""

from collections.abc import Sequence
from pathlib import Path

SPECIAL = ["<unk>", "<s>", "</s>"]


def llama(folder: Path, texts: Sequence[str], *, context: int = 32, seed: int = 0, scale: float = 5.0) -> str:
    """A LLaMA over the words of some texts, with a start token; returns the folder.

    Args:
        folder: where it is saved.
        texts: whose words it knows.
        context: tokens that it sees at once.
        seed: of the weights.
        scale: factor on the output's weights: far from uniform, so that texts differ.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_tokenizer(texts, start=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        for parameter in model.parameters():
            parameter.data *= scale
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def classifier(folder: Path, texts: Sequence[str], labels: Sequence[str], seed: int = 0) -> str:
    """A BERT that sorts texts into labels; returns the folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = word_tokenizer(texts)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config)
        for parameter in model.parameters():
            parameter.data *= 5
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def word_tokenizer(texts: Sequence[str], *, start: bool = False) -> object:
    """One token per word, the same each time: the tokenizers library's own training breaks ties at random."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in texts for word in text.split()})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *words])}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if start:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
