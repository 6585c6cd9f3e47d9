"""The backbone families in PyTorch, written after the papers with torchvision's names."""

import torch
from torch import nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    def __init__(self, in_channels, width, stride, groups, base_width):
        super().__init__()
        inner = width * base_width // 64 * groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or in_channels != 4 * width:
            conv = nn.Conv2d(in_channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(y)) + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    """ResNet-50 and 101, WRN and ResNeXt; returns the logits and the four taps."""

    def __init__(self, sizes, num_classes, groups=1, base_width=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for i, size in enumerate(sizes):
            blocks = []
            for j in range(size):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Bottleneck(channels, 64 * 2**i, stride, groups, base_width))
                channels = 256 * 2**i
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(2048, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        taps = []
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
            taps.append(x)
        return self.fc(x.mean((2, 3))), taps


class VGG(nn.Module):
    """VGG with one fully connected layer behind global average pooling."""

    def __init__(self, sizes, num_classes, norm=True):
        super().__init__()
        layers, channels = [], 3
        for size, width in zip(sizes, (64, 128, 256, 512, 512), strict=True):
            for _ in range(size):
                layers.append(nn.Conv2d(channels, width, 3, 1, 1))
                layers += [nn.BatchNorm2d(width)] * norm + [nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, num_classes)

    def forward(self, x):
        taps = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                taps.append(x)
        return self.classifier(x.mean((2, 3))), taps[1:]


class DenseLayer(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 128, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(128)
        self.conv2 = nn.Conv2d(128, 32, 3, 1, 1, bias=False)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    def __init__(self, sizes, num_classes):
        super().__init__()
        self.features = f = nn.Module()
        f.conv0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        f.norm0 = nn.BatchNorm2d(64)
        channels = 64
        for i, size in enumerate(sizes, start=1):
            block = nn.Module()
            for j in range(1, size + 1):
                setattr(block, f"denselayer{j}", DenseLayer(channels))
                channels += 32
            setattr(f, f"denseblock{i}", block)
            if i < 4:
                transition = nn.Module()
                transition.norm = nn.BatchNorm2d(channels)
                transition.conv = nn.Conv2d(channels, channels // 2, 1, bias=False)
                setattr(f, f"transition{i}", transition)
                channels //= 2
        f.norm5 = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x):
        f, taps = self.features, []
        x = F.max_pool2d(F.relu(f.norm0(f.conv0(x))), 3, 2, 1)
        for i in range(1, 5):
            for layer in getattr(f, f"denseblock{i}").children():
                x = layer(x)
            taps.append(x)
            if i < 4:
                transition = getattr(f, f"transition{i}")
                x = F.avg_pool2d(transition.conv(F.relu(transition.norm(x))), 2)
        taps[-1] = x = F.relu(f.norm5(x))
        return self.classifier(x.mean((2, 3))), taps


MAKE = {
    "resnet101": lambda k: ResNet((3, 4, 23, 3), k),
    "wrn101": lambda k: ResNet((3, 4, 23, 3), k, base_width=128),
    "resnext101": lambda k: ResNet((3, 4, 23, 3), k, groups=32, base_width=8),
    "resnet50": lambda k: ResNet((3, 4, 6, 3), k),
    "vgg16": lambda k: VGG((2, 2, 3, 3, 3), k),
    "vgg19": lambda k: VGG((2, 2, 4, 4, 4), k),
    "densenet121": lambda k: DenseNet((6, 12, 24, 16), k),
    "densenet201": lambda k: DenseNet((6, 12, 48, 32), k),
}
