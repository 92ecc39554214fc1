"""How sure an answer is: one distribution over places, the rest of the imagery, and outside of it.

Read as Bayes' rule. A tile i with similarity s and teacher score t has the logit

    l_i = student * s + teacher * t,

the log of how much more likely the photo is there than anywhere else. The rest of the imagery, places that
are not in the pool, has the logit

    l_rest = log(N - K) + (mean of the last quarter of the pool's logits) + rest,

and a photo that was not taken in the searched imagery

    l_outside = outside + density * log(N) + heading (where the heading is known) + ...

with N the number of searched places and K the size of the pool. A softmax over all of them is the
distribution. Evidence conditions it: a circle makes N smaller, a known heading leaves one azimuth shift.
All numbers are fitted together on validation towns (``core.evaluation.fit``) for views of n azimuth bins.
"""
