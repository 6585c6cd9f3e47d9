"""Every field of a config with its default, which is the paper's protocol where it states one.

Other config files start from `get_config()` and change what they need. On the command line a field
is changed with `--config.SECTION.FIELD=VALUE`, for instance `--config.model.objective=dsn`.
Sources: (P) the LSANet paper, section 4.1; (M) MedMNIST v2's own training script.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the defaults: LSANet on ResNet-18, on the synthetic set, at 224 pixels."""
    config = ConfigDict()
    config.seed = 0  # 0 to 2**32 - 1; initial parameters and sample order follow from it
    config.deterministic = True  # on a GPU only kernels that give the same bits in every run

    config.data = data = ConfigDict()
    data.name = "synthetic"  # a MedMNIST-2D name such as "dermamnist", or npz, folder, synthetic
    data.root = ""  # folder of the MedMNIST files; "": $MEDMNIST_ROOT, else ~/.medmnist
    data.url = ""  # base URL of a mirror of the MedMNIST files; "": MedMNIST's own server
    data.tfds_dir = ""  # of MedMNIST sets prepared by lsanet_jax.data, which are read in preference
    data.path = ""  # name = npz: a file with {train,val,test}_{images,labels}; folder: the folder
    data.csv = ""  # folder: table of file, label and perhaps split; "": labels are folder names
    data.val_fraction = 0.1  # folder: drawn from train where there is no validation split
    data.test_fraction = 0.2  # folder: likewise for test
    data.split_seed = 0  # folder: of that draw; apart from config.seed, so that runs share splits
    data.skip_broken = False  # folder: leave out images that cannot be read, and count them
    data.max_megapixels = 100.0  # folder: larger images are refused
    data.task = ""  # npz, folder: one of the tasks in lsanet_jax/data/dataset.py; "": infer it
    data.size = 28  # pixels; MedMNIST file (28, 64, 128, 224); synthetic; folder: stored size
    data.image_size = 224  # pixels; what the network sees (P)
    data.resize = "nearest"  # nearest, bilinear, bicubic: from stored size to image_size (M)
    data.as_rgb = True  # repeat grey images to 3 channels
    data.mean = (0.5,)  # subtracted after scaling to [0, 1]; one value, or one per channel (M)
    data.std = (0.5,)  # divisor after that, likewise (M)
    data.train_fraction = 1.0  # of each class's training images; subsets of one seed are nested
    data.train_per_class = 0  # so many training images of each class instead; 0: all
    data.pipeline = "auto"  # device: images live on every device; grain: they are read, decoded
    # and sent while it computes; auto: device where all fit device_budget_mb. Same result either way
    data.device_budget_mb = 4096  # MiB
    data.workers = -1  # grain: processes that decode files; -1: one per core, 8 at most; 0: threads

    data.augment = augment = ConfigDict()  # each training image anew in each step; all off at first
    augment.hflip = False  # left and right swapped, with probability 1/2
    augment.vflip = False  # top and bottom swapped, with probability 1/2
    augment.rot90 = False  # by 0, 90, 180 or 270 degrees
    augment.shift = 0.0  # by up to this fraction of the side, either way, along each axis
    augment.crop = 0.0  # a part of area 1 - crop to 1, anywhere, enlarged to full size
    augment.rotate = 0.0  # degrees, either way
    augment.scale = 0.0  # about the centre by a factor of 1 - scale to 1 + scale
    augment.brightness = 0.0  # times a factor of 1 - brightness to 1 + brightness
    augment.contrast = 0.0  # distance from the image's mean grey times such a factor
    augment.saturation = 0.0  # distance from the pixel's own grey times such a factor
    augment.hue = 0.0  # by up to this fraction of the colour circle, either way
    augment.cutout = 0.0  # side of a grey square, as a fraction of the image's
    augment.mixup = 0.0  # alpha of Beta(alpha, alpha); images and labels blend with a neighbour's

    data.synthetic = synthetic = ConfigDict()  # name = synthetic only
    synthetic.task = "multi-class"  # multi-class, binary-class, ordinal-regression, multi-label
    synthetic.num_classes = 4  # classes, or labels of a multi-label set
    synthetic.num_train = 1024  # images
    synthetic.num_val = 256  # images
    synthetic.num_test = 256  # images
    synthetic.channels = 3  # 3: stained colour images, 1: grey
    synthetic.seed = 0  # which set is drawn; apart from config.seed, so that runs share their data

    config.model = model = ConfigDict()
    model.backbone = "resnet18"  # resnet18 34 50 101, wrn50 wrn101, resnext50 resnext101,
    # vgg16 vgg19, densenet121 169 201; or MODULE:CLASS, of your own, called with in_channels=, rngs=
    model.stem = "imagenet"  # imagenet: 7x7 stride 2 and pooling; small: 3x3 stride 1 (for 28 px);
    # VGG: with or without the first of its five poolings
    model.attention = "none"  # in every block: none, se, cbam, eca, srm, simam
    model.norm = "batch"  # batch, or none for plain VGG
    model.objective = "lsanet"  # baseline, dsn, dks, dsn_ks, dsn_lsa, lsanet; probe: the baseline
    # with auxiliary classifiers that leave the backbone alone (Figure 2)
    model.taps = (1, 2, 3, 4)  # supervised stages, the last one included; dks never uses stage 1
    model.lsa = lsa = ConfigDict()  # layer selective attention, for dsn_lsa and lsanet
    lsa.kind = "fc"  # fc (the paper's choice), conv, gated, self
    lsa.channels = 64  # channels of each embedded map
    lsa.reduction = 8  # fc: hidden units = taps * channels / reduction (P)
    lsa.kernel_size = 3  # conv: taps of the 1-D convolution, odd
    model.dtype = "float32"  # of feature maps: float32, bfloat16; parameters stay float32
    model.remat = False  # recompute blocks in the backward pass: less memory (XLA on CPU undoes it)
    model.init_from = ""  # .safetensors with torchvision's names: the backbone to start from

    config.loss = loss = ConfigDict()
    loss.alpha = (1.0,)  # dsn, dsn_ks, dks, probe: auxiliary classifiers' weights, one or one each
    loss.mu = 1.0  # dsn_ks, dks, lsanet: weight of knowledge synergy (P)

    config.train = train = ConfigDict()
    train.epochs = 100  # (P)
    train.batch_size = 64  # images per step, over all devices (P)
    train.optimizer = "adam"  # adam, adamw, sgd (P: adam)
    train.learning_rate = 1e-3  # at the start (P)
    train.weight_decay = 0.0  # adamw: decoupled; adam and sgd: added to the gradient
    train.momentum = 0.9  # sgd only
    train.schedule = "step"  # step: times `decay` at each milestone; constant; cosine: to 0
    train.milestones = (0.5, 0.75)  # step: fractions of the epochs (M)
    train.decay = 0.1  # step: factor (M)
    train.on_nan = "stop"  # or skip: drop steps whose loss or gradient is not finite
    train.max_skipped_steps = 10  # skip: stop after all if there are more, in the whole run
    train.steps_per_dispatch = 1  # steps in one device program; 10 or so saves launch gaps on a GPU
    train.log_every_steps = 10  # steps between two points in TensorBoard
    train.checkpoint_every_epochs = 1  # epochs between two to resume from; each best has one, too

    config.eval = evaluation = ConfigDict()
    evaluation.batch_size = 256  # images per evaluation step; changes speed and memory only
    evaluation.select = "best_val_auc"  # the epoch to report: best_val_auc (M) or last
    return config
