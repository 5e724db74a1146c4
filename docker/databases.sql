-- Run once, when the volume is new. MLflow's database is made by the image (POSTGRES_DB).
CREATE DATABASE optuna;
