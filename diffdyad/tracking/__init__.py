"""A preview tracker: landmarks of a face in pictures to the motion of a head model.

`fit.fit_landmarks` is the fit; `mediapipe` finds the landmarks, in a process of its own. Good enough to look at and to
rehearse with; the published figures of this field are made with SMIRK, EMICA or VHAP, whose results `readers` takes.
"""
