"""Question: what did each step from convolutions to pretrained Transformers buy, where labels are few?

Run: python launch.py --config=configs/text_history.py --workdir=runs/text_history --config.data.path=/usr/share/wordnet
     --config=configs/text_history.py:PRETRAINED,MINILM,VECTORS adds what starts from the study of configs/text_pretraining.py
     in the folder PRETRAINED, from all-MiniLM-L6-v2's weights in the folder MINILM, and from the study of
     configs/word_vectors.py in the folder VECTORS; each may be left out.
     The same on 500 mails, spam or not: --config.data.name=spam_assassin --config.data.path=DIR --config.data.examples=500
     --config.data.length=64 --config.study.name=spam_history

Data: 2,000 labelled glosses in 45 lexical classes, a long tail; classes weigh the same in balanced accuracy.

Result: test balanced accuracy in percent, eight seeds (NVIDIA H200, jax 0.11.2), differences with 95 % intervals, p 0.031
    each after Holm. Text CNN 12.51 ± 0.27. BiLSTM +6.40 (5.74 to 7.05), 6.6 times the CNN's training time. BERT-mini +1.56
    (0.81 to 2.20), 5.1 times. BERT-mini pretrained on the other glosses +24.32 (23.67 to 24.99), 5.1 times, and 54 s of
    pretraining, which all seeds share (one run, 24 epochs, test loss 3.27 a token; unigram frequencies 6.90). MiniLM (half-
    precision weights) +26.19 (25.41 to 27.06), 9.2 times. Reference: TF-IDF and logistic regression with balanced classes
    31.1, 13.5 without (scikit-learn, C 1, chosen on validation). Rates were not tuned; the CNN and the BERT from scratch have
    not finished learning.
    Another run, of three networks on 2 cores (jax 0.10.2): average of Word2Vec's vectors 29.42 ± 0.19; LSTM on them -0.27
    (-0.80 to 0.29), no effect shown, 7.5 times the average's training time; LSTM without them -10.63 (-11.26 to -9.96),
    p 0.016. The vectors took 67 s, which all seeds share.
"""

from research.config import base


def _bert(name, **fields):
    """A BERT, and the rates that suit it."""
    model = {'name': name, 'head': 'classification', 'num_classes': 0, 'init_from': '', **fields}
    return {'model': model, 'optimizer.learning_rate': 3e-4}


def get_config(arg: str = ''):
    """Eight paired seeds; the pretrained weights are the same for all of them."""
    pretrained, minilm, vectors = (*arg.split(','), '', '')[:3]
    config = base.get_config()
    config.study.name = 'text_history'
    config.task.name = 'text_classification'
    config.data.name = 'wordnet'
    config.data.length = 32
    config.data.examples = 2000
    config.data.validation = 2000.0
    config.data.batch_size = 32
    config.model = {'name': 'text_cnn', 'num_classes': 0, 'init_from': ''}
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip = {'name': 'global_norm', 'max_norm': 1.0}
    config.schedule.name = 'cosine'
    config.schedule.warmup = '0.1run'
    config.study.metric = 'test/balanced_accuracy'
    config.study.budget = '10ep'
    config.study.seeds = 8
    lstm = {'name': 'lstm', 'head': 'classification', 'dropout': 0.3, 'num_classes': 0, 'init_from': ''}
    of_words = {'num_classes': 0, 'init_from': f'{vectors}:baseline:0'}
    config.study.variants = {
        **({'average': {'model': {'name': 'word_average', **of_words}, 'optimizer.learning_rate': 1e-2}} if vectors else {}),
        'lstm': {'model': lstm, 'optimizer.learning_rate': 2e-3},
        **({'lstm_vectors': {'model': lstm | of_words, 'optimizer.learning_rate': 2e-3}} if vectors else {}),
        'bert': _bert('bert_mini', max_length=64),
        **({'bert_pretrained': _bert('bert_mini', max_length=64, init_from=f'{pretrained}:baseline:0')} if pretrained else {}),
        **({'minilm': _bert('bert', init_from=minilm)} if minilm else {}),
    }
    return config
