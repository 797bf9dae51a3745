"""Wan's network written out in its makers' module layout: the slow truth that conversion is compared with.

Short on purpose: one sample, float64 positions, plain attention. Names of modules and parameters are those of the published
weights (`blocks.0.self_attn.q.weight`, `head.modulation`, ...), the arithmetic that of the Wan report, sections 4.2 and 4.3.
"""

from __future__ import annotations

import torch
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(dim) + 0.5)

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    def __init__(self, dim, heads, image=False):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim), RMSNorm(dim)
        if image:
            self.k_img, self.v_img, self.norm_k_img = nn.Linear(dim, dim), nn.Linear(dim, dim), RMSNorm(dim)

    def forward(self, x, context=None, rope=None, image=None):
        context = x if context is None else context
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(context)), self.v(context)
        out = self.attend(q, k, v, rope)
        if image is not None:
            out = out + self.attend(q, self.norm_k_img(self.k_img(image)), self.v_img(image))
        return self.o(out)

    def attend(self, q, k, v, rope=None):
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(0, 1) for x in (q, k, v))
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)
        return (weights @ v).transpose(0, 1).flatten(1)


def rotate(x, rope):
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rope).flatten(-2).to(x)


def rope_table(frames, rows, columns, head_dim):
    small = 2 * (head_dim // 6)
    angles = []
    for size, dim in ((frames, head_dim - 2 * small), (rows, small), (columns, small)):
        speed = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles.append(torch.arange(size, dtype=torch.float64)[:, None] * speed)
    time, down, across = angles
    grid = (frames, rows, columns, -1)
    parts = [time[:, None, None].expand(grid), down[None, :, None].expand(grid), across[None, None].expand(grid)]
    angle = torch.cat(parts, dim=-1).flatten(0, 2)
    return torch.polar(torch.ones_like(angle), angle)


class Block(nn.Module):
    def __init__(self, dim, heads, ffn_dim, image):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, 1e-6, elementwise_affine=False) for _ in range(2))
        self.norm3 = nn.LayerNorm(dim, 1e-6)
        self.self_attn, self.cross_attn = Attention(dim, heads), Attention(dim, heads, image)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn_dim), nn.GELU("tanh"), nn.Linear(ffn_dim, dim))
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(self, x, e, text, image, rope):
        e = (self.modulation + e)[0]
        x = x + self.self_attn(self.norm1(x) * (1 + e[1]) + e[0], rope=rope) * e[2]
        x = x + self.cross_attn(self.norm3(x), text, image=image)
        return x + self.ffn(self.norm2(x) * (1 + e[4]) + e[3]) * e[5]


class Head(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(dim, 1e-6, elementwise_affine=False), nn.Linear(dim, out)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    def forward(self, x, e):
        shift, scale = self.modulation[0] + e
        return self.head(self.norm(x) * (1 + scale) + shift)


class ReferenceWan(nn.Module):
    """[in, F, Y, X], t, text [L, text_dim] and image tokens [N, image_dim] or None -> [out, F, Y, X]."""

    def __init__(self, dim=24, heads=2, ffn=32, layers=2, channels=(36, 16), text_dim=32, image_dim=None, freq=32):
        super().__init__()
        self.freq, self.head_dim, self.out = freq, dim // heads, channels[1]
        self.patch_embedding = nn.Conv3d(channels[0], dim, (1, 2, 2), stride=(1, 2, 2))
        self.text_embedding = nn.Sequential(nn.Linear(text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(freq, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(dim, heads, ffn, image_dim is not None) for _ in range(layers))
        self.head = Head(dim, 4 * channels[1])
        if image_dim is not None:
            norms = nn.LayerNorm(image_dim), nn.LayerNorm(dim)
            linears = nn.Linear(image_dim, image_dim), nn.Linear(image_dim, dim)
            self.img_emb = nn.Module()
            self.img_emb.proj = nn.Sequential(norms[0], linears[0], nn.GELU(), linears[1], norms[1])

    def forward(self, x, t, text, image=None):
        tokens = self.patch_embedding(x[None])[0]
        frames, rows, columns = tokens.shape[1:]
        rope = rope_table(frames, rows, columns, self.head_dim)
        tokens = tokens.flatten(1).T
        speed = 10000.0 ** (-torch.arange(self.freq // 2, dtype=torch.float64) / (self.freq // 2))
        wave = torch.cat([torch.cos(t * speed), torch.sin(t * speed)]).float()
        e = self.time_embedding(wave)
        e6 = self.time_projection(e).unflatten(0, (6, -1))
        text, image = self.text_embedding(text), None if image is None else self.img_emb.proj(image)
        for block in self.blocks:
            tokens = block(tokens, e6, text, image, rope)
        cells = self.head(tokens, e).reshape(frames, rows, columns, 1, 2, 2, self.out)
        return torch.einsum("fyxpqrc->cfpyqxr", cells).reshape(self.out, frames, 2 * rows, 2 * columns)
