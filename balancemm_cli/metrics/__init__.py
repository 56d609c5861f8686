"""What a prediction is worth: accuracy, mAP, F1, calibration, and what each modality contributes."""
