"""L2LTR: "Cross-view Geo-localization with Layer-to-Layer Transformer", NeurIPS 2021.

https://arxiv.org/abs/2107.00842. A ResNetV2 stem, then a vision transformer with cross-layer
attention (the authors' self-cross attention): queries and values come from a layer's input, keys
from the input of the layer before. One encoder per view, nothing shared. State-dict names are the
authors', so their files load one to one (``core.models.pretrained``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import SettingError
from core.models.layers import WeightCache, attend, encode_in_parts

__all__ = ["L2ltr", "L2ltrConfig"]

Size = tuple[int, int]


@dataclass(frozen=True)
class L2ltrConfig:
    """Shape of one encoder; the defaults are R50+ViT-B/16, the only one that was published.

    Attributes:
        image_size: (height, width) in pixels that the position table is built for.
        depth: transformer layers.
        width: channels of a token.
        heads: attention heads.
        hidden: width of the MLP.
        units: residual units of the stem's three blocks.
        dropout: rate on embeddings and in the MLP while training.

    """

    image_size: Size = (128, 512)
    depth: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    units: tuple[int, int, int] = (3, 4, 9)
    dropout: float = 0.1


class StdConv2d(nn.Conv2d):
    """Convolution without bias whose filters are standardised at every use, eps 1e-5."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self._standardised = WeightCache()

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, H / stride, W / stride)."""
        if torch.is_grad_enabled():
            (weight,) = self._standardise()
        else:
            (weight,) = self._standardised((self.weight,), self._standardise)
        return F.conv2d(features, weight, None, self.stride, self.padding)

    def _standardise(self) -> tuple[Tensor]:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return ((self.weight - mean) / torch.sqrt(variance + 1e-5),)


class ResidualUnit(nn.Module):
    """Bottleneck 1 x 1, 3 x 3, 1 x 1 with group norm after each convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.conv1 = StdConv2d(inputs, middle, 1)
        self.gn1 = nn.GroupNorm(32, middle, eps=1e-6)
        self.conv2 = StdConv2d(middle, middle, 3, stride)
        self.gn2 = nn.GroupNorm(32, middle, eps=1e-6)
        self.conv3 = StdConv2d(middle, outputs, 1)
        self.gn3 = nn.GroupNorm(32, outputs, eps=1e-6)
        self.is_projected = stride != 1 or inputs != outputs
        if self.is_projected:
            self.downsample = StdConv2d(inputs, outputs, 1, stride)
            # One group per channel and PyTorch's own eps: unlike the other norms, but published so.
            self.gn_proj = nn.GroupNorm(outputs, outputs, eps=1e-5)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, H / stride, W / stride)."""
        shortcut = self.gn_proj(self.downsample(features)) if self.is_projected else features
        branch = F.relu(self.gn1(self.conv1(features)))
        branch = F.relu(self.gn2(self.conv2(branch)))
        return F.relu(shortcut + self.gn3(self.conv3(branch)))


class HybridStem(nn.Module):
    """The first three stages of a ResNetV2-50: stride 16, 1024 channels."""

    def __init__(self, units: tuple[int, int, int]) -> None:
        super().__init__()
        self.root = nn.Sequential()
        self.root.add_module("conv", StdConv2d(3, 64, 7, 2))
        self.root.add_module("gn", nn.GroupNorm(32, 64, eps=1e-6))
        self.body = nn.Sequential()
        for number, count in enumerate(units, start=1):
            outputs = 128 * 2**number
            inputs = 64 if number == 1 else outputs // 2
            block = nn.Sequential()
            for unit in range(1, count + 1):
                stride = 2 if unit == 1 and number > 1 else 1
                block.add_module(f"unit{unit}", ResidualUnit(inputs, outputs, stride))
                inputs = outputs
            self.body.add_module(f"block{number}", block)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1024, H / 16, W / 16)."""
        features = F.relu(self.root(images))
        body: Tensor = self.body(F.max_pool2d(features, 3, stride=2, padding=1))
        return body


class Embeddings(nn.Module):
    """Stem tokens with a class token in front and learned positions."""

    def __init__(self, config: L2ltrConfig, grid: Size) -> None:
        super().__init__()
        self.grid = grid
        self.hybrid_model = HybridStem(config.units)
        self.patch_embeddings = nn.Conv2d(1024, config.width, 1)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + grid[0] * grid[1], config.width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + N, C), the class token first."""
        features = self.patch_embeddings(self.hybrid_model(images))
        if features.shape[-2:] != self.grid:
            raise SettingError(
                f"L2LTR input size: got {images.shape[-2]} x {images.shape[-1]} px, expected "
                f"{16 * self.grid[0]} x {16 * self.grid[1]}, which the positions are built for."
            )
        tokens = features.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        embedded: Tensor = self.dropout(tokens + self.position_embeddings)
        return embedded


class CrossLayerAttention(nn.Module):
    """Multi-head attention whose keys come from another sequence than queries and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, previous: Tensor) -> Tensor:
        """Tokens (B, N, C) attend by keys made of (B, N, C) -> (B, N, C)."""
        gathered = attend(
            self._split(self.query(tokens)),
            self._split(self.key(previous)),
            self._split(self.value(tokens)),
        )
        out: Tensor = self.out(gathered.transpose(1, 2).flatten(2))
        return out

    def _split(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        return tokens.view(batch, count, self.heads, width // self.heads).transpose(1, 2)


class FeedForward(nn.Module):
    """Two linear maps around an exact GELU."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        hidden = self.dropout(F.gelu(self.fc1(tokens)))
        out: Tensor = self.dropout(self.fc2(hidden))
        return out


class CrossLayer(nn.Module):
    """One pre-norm layer: h + Attn(q, v from LN1(h), k from LN2(previous input)), then the MLP."""

    def __init__(self, config: L2ltrConfig) -> None:
        super().__init__()
        self.attention_norm_1 = nn.LayerNorm(config.width, eps=1e-6)
        self.attention_norm_2 = nn.LayerNorm(config.width, eps=1e-6)
        self.ffn_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.ffn = FeedForward(config.width, config.hidden, config.dropout)
        self.attn = CrossLayerAttention(config.width, config.heads)

    def forward(self, tokens: Tensor, previous: Tensor) -> Tensor:
        """Input of this layer and input of the layer before, each (B, N, C) -> (B, N, C)."""
        tokens = tokens + self.attn(self.attention_norm_1(tokens), self.attention_norm_2(previous))
        output: Tensor = tokens + self.ffn(self.ffn_norm(tokens))
        return output


class CrossLayerEncoder(nn.Module):
    """The layers and a last norm."""

    def __init__(self, config: L2ltrConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(CrossLayer(config) for _ in range(config.depth))
        self.encoder_norm = nn.LayerNorm(config.width, eps=1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C); the first layer is its own predecessor."""
        previous = tokens
        for layer in self.layer:
            tokens, previous = layer(tokens, previous), tokens
        normed: Tensor = self.encoder_norm(tokens)
        return normed


class Transformer(nn.Module):
    """Embeddings and encoder under the authors' name."""

    def __init__(self, config: L2ltrConfig, grid: Size) -> None:
        super().__init__()
        self.embeddings = Embeddings(config, grid)
        self.encoder = CrossLayerEncoder(config)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + N, C)."""
        tokens: Tensor = self.encoder(self.embeddings(images))
        return tokens


class L2ltr(nn.Module):
    """Encoder of one view.

    Attributes:
        channels: C of the feature map and size of the descriptor.
        stride: (vertical, horizontal) pixels per token.
        mean, std: normalisation of RGB in [0, 1] that the images must have had (ImageNet's).

    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    stride = (16, 16)

    def __init__(self, config: L2ltrConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or L2ltrConfig()
        self.channels = config.width
        self.transformer = Transformer(config, self.grid(*config.image_size))
        self._initialise()

    def grid(self, height: int, width: int) -> Size:
        """Rows and columns of tokens of a view of so many pixels.

        Raises:
            SettingError: height or width is no multiple of 16.

        """
        if height < 1 or width < 1 or height % 16 or width % 16:
            raise SettingError(
                f"L2LTR input size: got {height} x {width} px, expected multiples of 16. "
                "Resize the view."
            )
        return height // 16, width // 16

    def forward(self, images: Tensor) -> Tensor:
        """Encode normalised images (B, 3, H, W) into (B, 1 + N, C), the class token first."""
        tokens: Tensor = self.transformer(images)
        return tokens

    def describe(self, images: Tensor) -> Tensor:
        """Describe normalised images (B, 3, H, W) by their class tokens: unit vectors (B, C)."""
        return F.normalize(encode_in_parts(self, images)[:, 0], dim=1)

    def feature_map(self, images: Tensor, circular: bool = False) -> Tensor:
        """Encode normalised images (B, 3, H, W) into (B, C, h, w), without the class token.

        ``circular`` changes nothing: the published stem pads with zeros.
        """
        tokens = encode_in_parts(self, images)[:, 1:].transpose(1, 2)
        return tokens.reshape(len(images), self.channels, *self.transformer.embeddings.grid)

    def _initialise(self) -> None:
        """As published for a start without weights: Xavier in the MLPs, zeros for positions."""
        for module in self.modules():
            if isinstance(module, FeedForward):
                for linear in (module.fc1, module.fc2):
                    nn.init.xavier_uniform_(linear.weight)
                    nn.init.normal_(linear.bias, std=1e-6)
